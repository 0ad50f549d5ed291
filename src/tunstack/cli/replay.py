"""``tunstack replay``."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunstack.cli.progress import progress

if TYPE_CHECKING:
    from tunstack.capture.report import Report


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--ignore-checksums",
    is_flag=True,
    help="Judge packets as with offload, where the kernel vouches for checksums.",
)
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE..."
)
def replay(files: tuple[Path, ...], ignore_checksums: bool, as_json: bool) -> None:
    """Play captures (pcap, pcapng) to the stack.

    Reports the verdict on every packet, and what became of each TCP stream when the
    recorded client is our host and what the recorded server sent is the cluster's
    answer. A file that cannot be read to its end is reported as far as it goes.
    """
    from tunstack.capture.replay import replay as replay_file

    show = progress(as_json)
    reports = []
    for number, path in enumerate(files, 1):
        show(f"{number} of {len(files)}: {path}")
        report = replay_file(path, ignore_checksums=ignore_checksums)
        reports.append(report)
        if not as_json:
            for line in _lines(report):
                click.echo(line)
    verdicts = sum((report.verdicts for report in reports), Counter[str]())
    if as_json:
        document = {
            "files": [report.document() for report in reports],
            "verdicts": _sorted(verdicts),
        }
        click.echo(json.dumps(document))
    elif len(reports) > 1:
        click.echo(f"{len(reports)} files\n  verdicts     {_counts(verdicts)}")
    for report in reports:
        if report.error is not None:
            raise report.error


def _lines(report: "Report") -> Iterator[str]:
    links = ", ".join(report.links) or "nothing"
    yield f"{report.path}: {report.frames} frames of {links}, {report.octets} octets of IP"
    if report.verdicts:
        yield f"  verdicts     {_counts(report.verdicts)}"
    if report.others:
        yield f"  not IP       {report.others}"
    for stream in report.streams:
        yield f"  stream       {stream}"
    if report.outside:
        yield f"  outside      {report.outside} segments of streams without a SYN"
    if report.datagram_count:
        yield (
            f"  datagrams    {report.datagram_count}: {report.datagrams} out,"
            f" {report.datagram_answers} answers"
        )
    if report.echo_requests:
        yield f"  echoes       {report.echo_requests}, {report.echo_answers} answers"
    if report.drops:
        yield f"  drops        {_counts(report.drops)}"
    if report.error is not None:
        yield f"  stopped      {report.error}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in _sorted(counts).items())


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))
