"""
A real target: a WebDAV server on which 50 sites are created, configured and joined to a hub, in parallel and with failures, and taken back.

What the server holds is read with a plain HTTP client, and from its directory.
"""

from __future__ import annotations

import http.client
import json
import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.crash.processes import eventually
from tests.scenarios.stage import ended

SITES = [f"site-{number:02}" for number in range(50)]
#: Those that the hub never takes, one that it takes at the second attempt, and one whose first worker dies half-way.
REFUSED, SLOW, DEADLY = SITES[3::10], "site-07", "site-25"
JOINED = [name for name in SITES if name not in REFUSED]

SERVER = """
import sys
from cheroot import wsgi
from wsgidav.wsgidav_app import WsgiDAVApp

app = WsgiDAVApp({
    "provider_mapping": {"/": sys.argv[1]}, "simple_dc": {"user_mapping": {"*": True}}, "verbose": 0, "logging": {"enable": False},
    "property_manager": True, "lock_storage": True,
})
server = wsgi.Server(("127.0.0.1", 0), app, numthreads=12)
server.prepare()
print(server.bind_addr[1], flush=True)
server.serve()
"""

JOBS = """
import http.client

PORT = int(pathlib.Path("port").read_text())
TITLE = '<propertyupdate xmlns="DAV:" xmlns:x="urn:sites"><{what}><prop><x:title>{text}</x:title></prop></{what}></propertyupdate>'


class Kept(threading.local):
    def __init__(self):
        self.connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=20)


kept = Kept()


def ask(method, path, body=None, bears=()):
    kept.connection.request(method, path, body=body)
    answer = kept.connection.getresponse()
    content = answer.read()
    if answer.status >= 400 and answer.status not in bears:
        raise OSError(f"{method} {path}: {answer.status} {answer.reason}")
    return answer.status, content


def is_gone(path):
    return ask("HEAD", path, bears=(404,))[0] == 404


@durabatch.undo_action("delete", verify=is_gone)
def delete(path):
    note("delete", path)
    ask("DELETE", path, bears=(404,))


@durabatch.undo_action("put_back", verify=lambda path, text: ask("GET", path)[1].decode() == text)
def put_back(path, text):
    note("put_back", path)
    ask("PUT", path, body=text)


@durabatch.undo_action("drop_title")
def drop_title(path):
    note("drop_title", path)
    ask("PROPPATCH", path, body=TITLE.format(what="remove", text=""))


def provision(name, ctx):
    site, page, number = f"/sites/{name}/", f"/pages/{name}.html", int(name[-2:])
    ctx.undo("delete", path=site)
    ask("MKCOL", site)
    ask("PUT", f"{site}settings.json", body='{"title": "%s", "attempt": %d}' % (name, ctx.attempt))
    ask("MKCOL", f"{site}media/")
    ask("PUT", f"{site}media/logo", body=bytes(range(256)) * number)
    if name == "site-25" and not os.path.exists("died"):
        pathlib.Path("died").touch()
        os._exit(1)
    old = ask("GET", page)[1].decode()
    ctx.undo("put_back", path=page, text=old)
    ask("PUT", page, body=old.replace("to come", "here"))
    ctx.undo("drop_title", path=page)
    ask("PROPPATCH", page, body=TITLE.format(what="set", text=name))
    hub = "/hub/full/of/it" if number % 10 == 3 else "/hub/members"
    ctx.undo("delete", path=f"{hub}/{name}")
    ask("PUT", f"{hub}/{name}", body=site)
    if name == "site-07" and ctx.attempt == 1:
        raise RuntimeError("the hub has forgotten")
    return {"site": site}
"""


class Server:
    """The server, seen from outside."""

    def __init__(self, port: int, folder: Path) -> None:
        self.connection, self.folder = http.client.HTTPConnection("127.0.0.1", port, timeout=20), folder

    def ask(self, method: str, path: str, **headers: str) -> bytes:
        """Send a request and return what is answered."""
        self.connection.request(method, path, headers=headers)
        answer = self.connection.getresponse()
        content = answer.read()
        assert answer.status in (200, 207), (method, path, answer.status)
        return content

    def listed(self) -> dict[str, tuple]:
        """Return everything that it tells of: of files the content, of all what somebody has set as a property."""
        found = {}
        for one in ElementTree.fromstring(self.ask("PROPFIND", "/", Depth="infinity")).iter("{DAV:}response"):
            href = one.findtext("{DAV:}href")
            props = sorted((prop.tag, prop.text) for prop in one.iter() if prop.tag.startswith("{urn:sites}"))
            is_folder = one.find(".//{DAV:}collection") is not None
            found[href] = (props, None if is_folder else self.ask("GET", href))
        return found

    def stored(self) -> dict[str, bytes | None]:
        """Return what stands in its directory."""
        paths = sorted(self.folder.rglob("*"))
        return {str(path.relative_to(self.folder)): None if path.is_dir() else path.read_bytes() for path in paths}


@pytest.fixture
def server(stage):
    """Start a server with a hub, and a page for each site that is to come."""
    pytest.importorskip("wsgidav")
    root = stage.folder / "root"
    for name in ("sites", "pages", "hub/members"):
        (root / name).mkdir(parents=True)
    for name in SITES:
        (root / "pages" / f"{name}.html").write_text(f"<p>{name} is to come</p>")
    (root / "hub/about").write_text("the hub")
    (stage.folder / "server.py").write_text(SERVER)
    child = stage.start_program([os.sys.executable, "server.py", str(root)])
    eventually(lambda: child.read(0.1) and child.lines(), "the port of the server")
    (stage.folder / "port").write_text(child.lines()[0])
    made = Server(int(child.lines()[0]), root)
    yield made
    made.connection.close()


def is_as_joined(listed: dict[str, tuple]) -> bool:
    """Tell whether all sites that could be joined are there, each once and whole, and nothing of the others."""
    made = {name: {href for href in listed if name in href} for name in SITES}
    whole = ("/sites/{0}/", "/sites/{0}/settings.json", "/sites/{0}/media/", "/sites/{0}/media/logo", "/pages/{0}.html", "/hub/members/{0}")
    for name in SITES:
        page = ([("{urn:sites}title", name)], f"<p>{name} is here</p>") if name in JOINED else ([], f"<p>{name} is to come</p>")
        hrefs = {text.format(name) for text in whole} if name in JOINED else {f"/pages/{name}.html"}
        if made[name] != hrefs or listed[f"/pages/{name}.html"] != (page[0], page[1].encode()):
            return False
    return True


def test_fifty_sites_are_provisioned_and_rolled_back_to_the_byte(stage, server):
    """Failed sites leave nothing behind, the others stand whole; rolled back in parallel, the server holds what it held before, to the byte."""
    stage.jobs(JOBS)
    stage.items(SITES)
    before, stored = server.listed(), server.stored()
    parallel = ("--ledger", "l.db", "--progress", "none", "-j", "2", "--concurrency", "4")
    ended(stage.start("run", "jobs.py:provision", "items.txt", *parallel, "--retries", "2", "--backoff", "10ms"), 1, 90)
    assert {key: state for key, state in stage.states().items() if state != "succeeded"} == dict.fromkeys(REFUSED, "failed")
    assert is_as_joined(server.listed())
    assert all(json.loads(server.ask("GET", f"/sites/{name}/settings.json"))["attempt"] > 1 for name in (SLOW, DEADLY))
    assert all("409" in stage.tries()[name][-1].message for name in REFUSED)

    ended(stage.start("rollback", "--ledger", "l.db", "--progress", "none", "-j", "2", "--yes"), 0, 90)
    assert server.listed() == before
    assert server.stored() == stored
    assert {stage.states()[name] for name in JOINED} == {"undone"}
    done = stage.notes()
    ended(stage.start("rollback", "--ledger", "l.db", "--progress", "none", "--yes"), 0)
    assert stage.notes() == done
