"""Following a collection, whatever happens to the API server."""

import asyncio
import json

import pytest
import pytest_asyncio
from aiohttp import web

from tests.cluster.fake_api import PODS, document
from tunstack.cluster import reflector
from tunstack.cluster.reflector import Reflector


def thing(name, color=None, namespace="shop", **parts):
    return document("Pod", name, namespace, spec={"color": color}, **parts)


def color(found):
    """Keep the colour, of what has one."""
    return found["spec"]["color"]


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Try again soon."""
    monkeypatch.setattr(reflector, "_FIRST", 0.01)
    monkeypatch.setattr(reflector, "_MOST", 0.02)


class Follower:
    """A reflector that runs, and what it tells."""

    def __init__(self, api, keep):
        self.news = asyncio.Queue()
        self.reflector = Reflector(api, PODS, keep, self._changed)
        self.task = asyncio.ensure_future(self.reflector.run())

    @property
    def items(self):
        return self.reflector.items

    def _changed(self, new):
        self.news.put_nowait(list(new))

    async def close(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest_asyncio.fixture
async def follow(api, stack):
    """Follow the pods."""

    async def start(keep=color):
        follower = Follower(api, keep)
        stack.push_async_callback(follower.close)
        return follower

    return start


async def test_what_there_is_is_listed(fake, follow):
    fake.load(PODS, thing("a", "red"), thing("b", "blue"), thing("a", "green", "till"))
    follower = await follow()
    assert sorted(await follower.news.get()) == ["blue", "green", "red"]
    assert follower.items == {"shop/a": "red", "shop/b": "blue", "till/a": "green"}


async def test_an_empty_collection_is_told_once(fake, follow):
    follower = await follow()
    assert await follower.news.get() == []
    assert follower.reflector.synced.is_set()
    assert follower.items == {}


async def test_what_has_no_namespace_is_kept_too(fake, follow):
    fake.load(PODS, thing("a", "red", None))
    follower = await follow()
    await follower.news.get()
    assert follower.items == {"/a": "red"}


async def test_changes_arrive(fake, follow):
    fake.load(PODS, thing("a", "red"))
    follower = await follow()
    assert await follower.news.get() == ["red"]
    await fake.watched.get()
    await fake.put(PODS, thing("b", "blue"))
    assert await follower.news.get() == ["blue"]
    await fake.put(PODS, thing("a", "green"))
    assert await follower.news.get() == ["green"]
    await fake.remove(PODS, "b", "shop")
    assert await follower.news.get() == []
    assert follower.items == {"shop/a": "green"}


async def test_what_happens_before_the_watch_is_not_missed(fake, follow):
    fake.load(PODS, thing("a", "red"))
    follower = await follow()
    assert await follower.news.get() == ["red"]
    await fake.put(PODS, thing("b", "blue"))
    assert await follower.news.get() == ["blue"]


async def test_what_is_not_kept_is_not_told(fake, follow):
    fake.load(PODS, thing("a", "red"), thing("colourless"))
    follower = await follow()
    assert await follower.news.get() == ["red"]
    await fake.put(PODS, thing("other"))
    # The same of what is kept, of an object that is another.
    await fake.put(PODS, thing("a", "red", status={"phase": "Running"}))
    await fake.remove(PODS, "colourless", "shop")
    await fake.put(PODS, thing("z", "last"))
    assert await follower.news.get() == ["last"]
    assert follower.items == {"shop/a": "red", "shop/z": "last"}


async def test_what_is_kept_no_longer_is_gone(fake, follow):
    fake.load(PODS, thing("a", "red"))
    follower = await follow()
    await follower.news.get()
    await fake.put(PODS, thing("a"))
    assert await follower.news.get() == []
    assert follower.items == {}


async def test_a_bookmark_says_a_version_and_nothing_else(fake, follow):
    fake.load(PODS, thing("a", "red"))
    follower = await follow()
    await follower.news.get()
    await fake.watched.get()
    version = await fake.bookmark(PODS)
    await fake.end_watches()
    await fake.watched.get()
    await fake.put(PODS, thing("b", "blue"))
    assert await follower.news.get() == ["blue"]
    assert fake.watches[1] == (PODS, version)
    assert follower.items == {"shop/a": "red", "shop/b": "blue"}


async def test_a_watch_that_ends_goes_on_where_it_was(fake, follow):
    fake.load(PODS, thing("a", "red"))
    follower = await follow()
    await follower.news.get()
    await fake.watched.get()
    await fake.put(PODS, thing("b", "blue"))
    await follower.news.get()
    await fake.end_watches()
    await fake.watched.get()
    await fake.put(PODS, thing("c", "green"))
    assert await follower.news.get() == ["green"]
    assert fake.asked("GET") == [PODS]
    assert fake.watches[1] == (PODS, fake.version(PODS, "b", "shop"))


async def test_after_a_version_is_forgotten_the_list_repairs_what_was_missed(fake, follow):
    fake.load(PODS, thing("a", "red"), thing("b", "blue"))
    follower = await follow()
    await follower.news.get()
    await fake.watched.get()
    fake.load(PODS, thing("a", "green"), thing("c", "grey"))
    fake.objects[PODS].pop(("shop", "b"))
    await fake.forget()
    assert sorted(await follower.news.get()) == ["green", "grey"]
    assert follower.items == {"shop/a": "green", "shop/c": "grey"}
    await fake.put(PODS, thing("d", "black"))
    assert await follower.news.get() == ["black"]


async def test_a_list_that_finds_nothing_new_is_not_told(fake, follow, caplog):
    fake.load(PODS, thing("a", "red"))
    follower = await follow()
    await follower.news.get()
    await fake.watched.get()
    await fake.forget()
    await fake.watched.get()
    await fake.put(PODS, thing("b", "blue"))
    assert await follower.news.get() == ["blue"]
    assert fake.asked("GET") == [PODS, PODS]
    assert caplog.records == []


async def test_a_restart_of_the_server_is_survived(fake, follow):
    fake.load(PODS, thing("a", "red"), thing("b", "blue"))
    follower = await follow()
    await follower.news.get()
    await fake.watched.get()
    await fake.stop()
    fake.load(PODS, thing("a", "green"))
    fake.objects[PODS].pop(("shop", "b"))
    await fake.start()
    assert await follower.news.get() == ["green"]
    assert follower.items == {"shop/a": "green"}
    await fake.put(PODS, thing("c", "grey"))
    assert await follower.news.get() == ["grey"]


@pytest.mark.parametrize(
    ("status", "text"), [(200, ""), (410, '{"message": "too old resource version"}')]
)
async def test_a_watch_that_brings_nothing_is_asked_for_ever_more_seldom(
    serve, open_api, stack, monkeypatch, status, text
):
    monkeypatch.setattr(reflector, "_FIRST", 0.02)
    monkeypatch.setattr(reflector, "_MOST", 10)
    watches = 0

    async def handle(request):
        nonlocal watches
        if "watch" in request.query:
            watches += 1
            return web.Response(status=status, text=text)
        return web.json_response({"metadata": {"resourceVersion": "7"}, "items": []})

    follower = Follower(await open_api(await serve(handle)), color)
    stack.push_async_callback(follower.close)
    await asyncio.sleep(0.2)  # attempts after 0, 0.02, 0.06, 0.14 s
    assert 2 <= watches <= 4


@pytest.mark.parametrize("text", ["{}", "[]", "null", '{"items": [{}]}'])
async def test_nonsense_is_survived(serve, open_api, stack, caplog, text):
    answers = [text, text]
    good = {"metadata": {"resourceVersion": "7"}, "items": [thing("a", "red")]}

    async def handle(request):
        if "watch" in request.query:
            await asyncio.Event().wait()
        return web.Response(text=answers.pop() if answers else json.dumps(good))

    follower = Follower(await open_api(await serve(handle)), color)
    stack.push_async_callback(follower.close)
    assert await follower.news.get() == ["red"]
    (record,) = caplog.records
    assert "does not answer as Kubernetes does" in record.getMessage()


async def test_an_object_of_another_shape_is_survived(fake, follow, caplog):
    fake.load(PODS, document("Pod", "a", "shop"))
    follower = await follow()
    await fake.until(lambda: len(fake.requests) >= 2)
    fake.objects[PODS].clear()
    fake.load(PODS, thing("b", "blue"))
    assert await follower.news.get() == ["blue"]
    (record,) = caplog.records
    assert "an object of another shape" in record.getMessage()


async def test_a_server_that_comes_late_is_awaited(fake, follow):
    await fake.stop()
    follower = await follow()
    fake.load(PODS, thing("a", "red"))
    await fake.start()
    assert await follower.news.get() == ["red"]


@pytest.mark.parametrize("status", [401, 403, 404, 500])
async def test_a_refusal_is_survived_and_said_once(fake, follow, caplog, status):
    fake.load(PODS, thing("a", "red"))
    fake.refused["GET", PODS] = status, "not now"
    follower = await follow()
    await fake.until(lambda: len(fake.requests) >= 3)
    fake.refused.clear()
    assert await follower.news.get() == ["red"]
    (record,) = caplog.records
    assert f"{PODS} is not followed at the moment" in record.getMessage()
