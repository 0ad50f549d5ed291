"""``tunstack install``."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import click

from tunstack._version import PRODUCT
from tunstack.cli import caller, kubernetes
from tunstack.cli.progress import progress, timeout_option
from tunstack.cluster import manifests
from tunstack.cluster.names import NAME
from tunstack.errors import ClusterError, UsageError


@click.command()
@kubernetes.options
@click.option("--image", metavar="IMAGE", help="The manager's image, tag and all.")
@click.option(
    "--registry",
    envvar="TUNSTACK_REGISTRY",
    metavar="HOST/PATH",
    help="Put before an image that names none. Also TUNSTACK_REGISTRY.",
)
@click.option(
    "--pull-secret", multiple=True, metavar="NAME", help="To get the image; repeatable."
)
@click.option(
    "--pull-policy",
    type=click.Choice(["IfNotPresent", "Always", "Never"]),
    default="IfNotPresent",
    show_default=True,
)
@click.option("--replicas", type=int, help="How many managers.  [default: 1]")
@click.option(
    "--tls-secret",
    metavar="NAME",
    help="Listen on the network, too, with this certificate, for bearers of a token.",
)
@click.option(
    "--grant-users",
    multiple=True,
    metavar="GROUP",
    help="Let this group of users connect; repeatable. One account is"
    " system:serviceaccount:NAMESPACE:NAME.",
)
@click.option("--upgrade", is_flag=True, help="Replace another version.")
@click.option(
    "--dry-run",
    type=click.Choice(["client", "server"]),
    help="Change nothing: client asks nobody, server has it checked.",
)
@click.option(
    "-o", "--output", type=click.Choice(["yaml", "json"]), help="Print the manifests."
)
@click.option("--no-wait", is_flag=True, help="Do not wait until it is ready.")
@timeout_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def install(
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None,
    manager_namespace: str | None,
    image: str | None,
    registry: str | None,
    pull_secret: tuple[str, ...],
    pull_policy: str,
    replicas: int | None,
    tls_secret: str | None,
    grant_users: tuple[str, ...],
    upgrade: bool,
    dry_run: str | None,
    output: str | None,
    no_wait: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Install the traffic manager into a cluster.

    Once, by an administrator; everybody connects to it then. What is there already
    is made what it shall be. Another version is only replaced with --upgrade.
    """
    said = kubernetes.said(kubeconfig, context, namespace, manager_namespace)
    wanted = manifests.Install(
        namespace=manager_namespace or NAME,
        replicas=1 if replicas is None else replicas,
        pull_policy=pull_policy,
        pull_secrets=pull_secret,
        tls_secret=tls_secret,
    )
    if output is not None and dry_run is None:
        raise UsageError("-o prints what would be done: it goes with --dry-run")
    if dry_run == "client":
        wanted = replace(wanted, image=manifests.image_of(image, registry))
        objects = [
            manifests.namespace(wanted.namespace),
            *manifests.objects(wanted),
            *manifests.grants(wanted.namespace, grant_users),
        ]
        _print(objects, output or "yaml")
        return
    who = caller.find()
    config = kubernetes.load(said, who).config
    show = progress(as_json)

    async def work() -> dict[str, Any]:
        from tunstack.cluster import install as steps
        from tunstack.cluster.api import Api

        where = config.cluster.manager_namespace
        access = kubernetes.access(config, who)
        async with Api(access, timeout=config.timeouts.api_request) as api:
            found = await steps.current(api, where)
            grants = manifests.grants(where, grant_users)
            unsaid = image is None and not registry
            if found is not None and unsaid and grant_users and not upgrade:
                applied = await steps.apply(api, grants, show, dry_run=bool(dry_run))
                return _report(where, steps.image_of(found), None, applied)
            if found is not None and not (steps.is_ours(found) or upgrade):
                raise ClusterError(
                    f"tunstack {steps.version_of(found)} is installed in the namespace"
                    f" {where}, and was not touched: this is {PRODUCT}",
                    hint="clients and managers of different versions work together;"
                    " `tunstack install --upgrade` replaces it",
                )
            name = (
                steps.image_of(found)
                if found is not None and unsaid and not upgrade
                else manifests.image_of(image, registry)
            )
            complete = replace(
                wanted,
                namespace=where,
                image=name,
                probe_services=not await steps.has_service_cidrs(api),
            )
            if replicas is None and found is not None:
                complete = replace(complete, replicas=found["spec"]["replicas"])
            objects = [
                *await steps.prepare_namespace(api, where, show, timeout),
                *manifests.objects(complete),
                *grants,
            ]
            if output is not None:
                _print(objects, output)
            applied = await steps.apply(api, objects, show, dry_run=bool(dry_run))
            if not (no_wait or dry_run):
                await steps.wait_ready(api, complete, show, timeout)
            return _report(where, name, complete.replicas, applied)

    report = asyncio.run(work())
    if as_json:
        click.echo(json.dumps(report))
    elif output is None:
        what = "granted" if report["replicas"] is None else "installed"
        if dry_run:
            what = f"could be {what}"
        click.echo(f"tunstack {PRODUCT} {what} in the namespace {report['namespace']}")


def _report(
    namespace: str, image: str, replicas: int | None, applied: list[str]
) -> dict[str, Any]:
    return {
        "version": PRODUCT,
        "namespace": namespace,
        "image": image,
        "replicas": replicas,
        "applied": applied,
    }


def _print(objects: list[manifests.Object], output: str) -> None:
    if output == "json":
        click.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        return
    import yaml

    click.echo(yaml.safe_dump_all(objects, sort_keys=False), nl=False)
