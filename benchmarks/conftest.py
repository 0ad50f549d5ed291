"""What an application gets goes into one table at the end, beside its ceilings."""

import pytest

from benchmarks import bench_channel

TABLE = pytest.StashKey[dict[str, dict[str, str]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = {}


@pytest.fixture
def say(request, benchmark):
    """Say a value of this benchmark, in a column of the table."""
    table = request.config.stash[TABLE]

    def say(row: str, column: str, value: float, *, digits: int = 3) -> None:
        benchmark.extra_info[f"{row}; {column}"] = value
        table.setdefault(row, {})[column] = f"{value:,.{digits}g}"

    return say


@pytest.fixture(scope="session")
def transports():
    """What a bare stream carries on loopback in this run, of ours and of ``grpc.aio``."""
    return {kind: bench_channel.measure(kind, None) for kind in ("lean", "grpc.aio")}


def pytest_terminal_summary(terminalreporter, config) -> None:
    table = config.stash[TABLE]
    if not table:
        return
    columns = list(dict.fromkeys(name for row in table.values() for name in row))
    lines = [["", *columns]]
    lines += [
        [row, *(cells.get(name, "") for name in columns)] for row, cells in table.items()
    ]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns) + 1)]
    terminalreporter.section("what an application gets, medians")
    for first, *rest in lines:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        terminalreporter.write_line("  ".join([first.ljust(widths[0]), *cells]))
