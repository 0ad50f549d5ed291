"""``tunstack install``."""

import json
from collections.abc import Mapping
from typing import Any

import click

from tunstack._version import PRODUCT
from tunstack.cli import caller, kubernetes, settings
from tunstack.cli.progress import progress, timeout_option
from tunstack.cluster import manifests
from tunstack.errors import ClusterError, UsageError


@click.command()
@kubernetes.admin_options
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
    help="[default: IfNotPresent]",
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
    manager_namespace: str | None,
    image: str | None,
    registry: str | None,
    pull_secret: tuple[str, ...],
    pull_policy: str | None,
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
    is made what it shall be: what is not said stays as it is. Another version is only
    replaced with --upgrade.
    """
    options = kubernetes.said(kubeconfig, context, None, manager_namespace)
    named = image is not None or bool(registry)
    said: dict[str, Any] = {
        "image": manifests.image_of(image, registry) if named else None,
        "replicas": replicas,
        "pull_policy": pull_policy,
        "pull_secrets": pull_secret or None,
        "tls_secret": tls_secret,
    }
    said = {key: value for key, value in said.items() if value is not None}
    if output is not None and dry_run is None:
        raise UsageError("-o prints what would be done: it goes with --dry-run")
    if dry_run == "client":
        where = settings.load(options).config.cluster.manager_namespace
        said["image"] = manifests.image_of(image, registry)
        wanted = manifests.Install(namespace=where, **said)
        objects = [
            manifests.namespace(where),
            *manifests.objects(wanted),
            *manifests.grants(where, grant_users),
        ]
        _print(objects, output or "yaml")
        return
    import asyncio

    from tunstack.cli import cluster

    who = caller.find()
    config = cluster.load(options, who).config
    show = progress(as_json)

    async def work() -> dict[str, Any]:
        from tunstack.cluster import install as steps
        from tunstack.cluster.api import Api

        where = config.cluster.manager_namespace
        access = cluster.access(config, who)
        async with Api(access, timeout=config.timeouts.api_request) as api:
            found = await steps.current(api, where)
            grants = manifests.grants(where, grant_users)
            if found is not None and grant_users and not (_decides(said) or upgrade):
                applied = await steps.apply(api, grants, show, dry_run=bool(dry_run))
                return _report(where, None, applied)
            if found is not None and not (steps.is_ours(found) or upgrade):
                raise ClusterError(
                    f"tunstack {steps.version_of(found)} is installed in the namespace"
                    f" {where}, and was not touched: this is {PRODUCT}",
                    hint="clients and managers of different versions work together;"
                    " `tunstack install --upgrade` replaces it",
                )
            before = {} if found is None else manifests.settings_of(found)
            if upgrade and before:
                own = manifests.repository(before["image"])
                before["image"] = manifests.image_of(own, None)
            values = before | said
            if "image" not in values:
                values["image"] = manifests.image_of(None, None)
            wanted = manifests.Install(
                namespace=where,
                probe_services=not await steps.has_service_cidrs(api),
                **values,
            )
            objects = [
                *await steps.prepare_namespace(api, where, show, timeout),
                *manifests.objects(wanted),
                *grants,
            ]
            if output is not None:
                _print(objects, output)
            applied = await steps.apply(api, objects, show, dry_run=bool(dry_run))
            if not dry_run:
                await steps.prune(api, where, objects, show)
                if not no_wait:
                    await steps.wait_ready(api, wanted, show, timeout)
            return _report(where, wanted, applied)

    report = asyncio.run(work())
    if as_json:
        click.echo(json.dumps(report))
    elif output is None:
        what = "granted" if report["replicas"] is None else "installed"
        if dry_run:
            what = f"could be {what}"
        click.echo(f"tunstack {PRODUCT} {what} in the namespace {report['namespace']}")


def _decides(said: Mapping[str, Any]) -> bool:
    """Whether more is said than what the environment always says: which registry."""
    context = click.get_current_context()
    source = context.get_parameter_source("registry")
    typed = source is click.core.ParameterSource.COMMANDLINE
    return bool(said.keys() - {"image"}) or bool(context.params["image"]) or typed


def _report(
    namespace: str, install: manifests.Install | None, applied: list[str]
) -> dict[str, Any]:
    """Say what was done; without an install only users were let in."""
    return {
        "version": PRODUCT,
        "namespace": namespace,
        "image": install and install.image,
        "replicas": install and install.replicas,
        "applied": applied,
    }


def _print(objects: list[manifests.Object], output: str) -> None:
    if output == "json":
        click.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        return
    import yaml

    click.echo(yaml.safe_dump_all(objects, sort_keys=False), nl=False)
