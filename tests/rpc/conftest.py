import asyncio


def pytest_asyncio_loop_factories(config, item):
    """Run everything on both event loops."""
    factories = {"asyncio": asyncio.new_event_loop}
    try:
        import uvloop
    except ImportError:
        return factories
    return {**factories, "uvloop": uvloop.new_event_loop}
