"""``meshnode keys rotate``, ``revoke``, ``publish``, ``ended``: the end of a key.

A statement that ends a key is kept in a file of text: lines for people that begin with
``#``, and the signed envelope in base64.
"""

import os
from binascii import Error as NotBase64
from binascii import a2b_base64, b2a_base64
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from meshnode.cli.asking import Where, answer_of
from meshnode.cli.keys import KEY_FILE, Passphrase, known_passphrase, open_keys, told_settings
from meshnode.cli.options import Home, Json, TokenFile, Url, home_of
from meshnode.cli.printing import console, say_json, short, table, when

if TYPE_CHECKING:
    from meshnode.adapters.key_file import NodeKeys
    from protocol.keys import Identity

#: The heir's key, until it takes the place of the old one.
_NEXT: Final = "keys.next"
_STATEMENT_BYTES_MAX: Final = 16_384

Yes = Annotated[bool, typer.Option("--yes", help="Do it: it can't be undone.")]


def rotate(
    *,
    passphrase_file: Passphrase = "",
    home: Home = "",
    as_json: Json = False,
) -> None:
    """Move the node to a new key; the old key signs that the new one goes on for it.

    The node must be down, and have ended its jobs: it starts with the new key then, and
    tells the mesh.  What others know of the old key is the new one's from then on:
    reputation, membership of a private mesh, who invited whom, and any ban.  Sessions
    with the old key are refused, by everyone who has heard.

    The old key stays in the home beside the new one.  Remove that file once the node
    has been seen with its new key, and any revocation prepared for the old one: whoever
    publishes that undoes the rotation.  Open invites and seed lists name the old key:
    make new ones.

    A key that somebody else has, too, is no key to rotate: he can do the same, and two
    heirs mean none.  Revoke it.

    Examples:
      meshnode down
      meshnode keys rotate
      meshnode up
    """
    import trio

    path = home_of(home) / KEY_FILE
    passphrase = known_passphrase(passphrase_file, home, path)
    network = told_settings(home).network
    told = trio.run(_rotate, path, passphrase, network)
    if as_json:
        say_json(told)
        return
    print(f"{told['was']} is followed by {told['peer_id']}")
    print(f"the old key is in {told['old_key']}: remove it once the new one has been seen")
    print("start the node, and the mesh will hear: meshnode up")


def revoke(
    *,
    prepare: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="Only sign it, into FILE, to be published when needed."
        ),
    ] = "",
    reason: Annotated[str, typer.Option(help="One line for people.")] = "",
    yes: Yes = False,
    passphrase_file: Passphrase = "",
    home: Home = "",
    as_json: Json = False,
) -> None:
    """Revoke the node's key: nobody believes anything by it any more, for good.

    What it signed before stays what it is: receipts, journals, what is owed.  Nobody
    goes on for it, and those it invited into a private mesh need a new invite.

    Prepare one while the key is yours, and keep the file offline: when the machine is
    lost or its disk was copied, publish it from any node of the mesh.  A prepared
    revocation counts from when each node hears it.

    Examples:
      meshnode keys revoke --prepare /media/usb/revocation
      meshnode keys publish /media/usb/revocation
      meshnode keys revoke --reason "the disk was stolen" --yes
    """
    from meshnode.cli.failure import CommandFailed
    from protocol.lifecycle import sign_revocation

    if not prepare and not yes:
        raise CommandFailed(
            "this ends the node's key for good",
            hint="say --yes, or --prepare FILE to keep a revocation for later",
        )
    path = home_of(home) / KEY_FILE
    identity = _identity(open_keys(path, known_passphrase(passphrase_file, home, path)))
    network = told_settings(home).network
    statement = sign_revocation(identity, network, reason=reason)
    if not prepare:
        _publish(statement, Where(home), as_json=as_json)
        return
    file = Path(prepare).absolute()
    _write(file, statement, identity.peer, network)
    if as_json:
        say_json({"file": str(file), "peer_id": identity.peer, "network": network})
        return
    print(f"{file} ends the key {identity.peer} when it is published")
    print("keep it offline, where you find it without this machine")


def publish(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What ends a key.")],
    *,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Tell the mesh that a key has ended, through the node that runs here: any node will do.

    The node passes it on, and so do all others; who is away hears when he is back.

    Examples:
      meshnode keys publish revocation
    """
    _publish(_read(file.absolute()), Where(home, url, token_file), as_json=as_json)


def ended(
    *, home: Home = "", url: Url = "", token_file: TokenFile = "", as_json: Json = False
) -> None:
    """List the keys that the node knows to have ended, and who goes on for them.

    Examples:
      meshnode keys ended
    """
    told = answer_of(Where(home, url, token_file), "GET", "/api/keys")
    if as_json:
        say_json(told)
        return
    if not told["ended"]:
        print("no key that this node knows has ended")
        return
    rows = [
        (
            short(row["peer"]),
            when(row["from_ms"]),
            short(row["stands"]) if row["stands"] != row["peer"] else "none",
            row["reason"],
        )
        for row in told["ended"]
    ]
    console().print(table(("key", "since", "heir", "reason"), rows))


# --- rotating -----------------------------------------------------------------------------


async def _rotate(path: Path, passphrase: str | None, network: str) -> dict[str, Any]:
    """Sign and store the rotation, then exchange the key: every step can be done again."""
    from meshnode.adapters.key_file import replace, save
    from meshnode.adapters.sqlite_store import open_store
    from meshnode.adapters.system import SystemEntropy
    from meshnode.app import STORE_FILE
    from meshnode.cli.failure import CommandFailed
    from meshnode.errors import StoreError

    old_keys = open_keys(path, passphrase)
    old = _identity(old_keys)
    try:
        async with open_store(path.with_name(STORE_FILE)) as store:
            await _refuse_unfinished(store)
            new_keys = _next(path.with_name(_NEXT), passphrase, old_keys)
            new = _identity(new_keys)
            await _store_rotation(store, old, new, network)
    except StoreError as exc:
        raise CommandFailed(
            f"the node's store can't be had: {exc}", hint="end the node first: meshnode down"
        ) from exc
    aside = path.with_name(f"keys.old-{old.peer[-8:]}")
    if not aside.exists():
        save(aside, old_keys, SystemEntropy(), passphrase)
    replace(path, new_keys, SystemEntropy(), passphrase)
    path.with_name(_NEXT).unlink()
    return {"was": old.peer, "peer_id": new.peer, "old_key": str(aside), "network": network}


def _next(path: Path, passphrase: str | None, old: "NodeKeys") -> "NodeKeys":
    """Return the heir's keys: those of a rotation that broke off, or new ones."""
    from meshnode.adapters.key_file import load_or_create
    from meshnode.adapters.system import SystemEntropy

    keys = load_or_create(path, SystemEntropy(), passphrase)
    if keys == old:  # it broke off at the very end: that was another rotation
        path.unlink()
        keys = load_or_create(path, SystemEntropy(), passphrase)
    return keys


async def _refuse_unfinished(store: Any) -> None:  # noqa: ANN401 - the store that is open
    from meshnode.cli.failure import CommandFailed
    from meshnode.services.job_rows import JOB_ROW, JOBS
    from protocol.codec import decode_as

    rows = await store.scan(JOBS)
    open_ = [job for job, raw in rows if not decode_as(raw, JOB_ROW).done]
    if open_:
        raise CommandFailed(
            f"{len(open_)} jobs of this node have not ended, such as {open_[0]}: "
            "only the key that began them can go on with them",
            hint="start the node and let them end, or cancel them: meshnode jobs",
        )


async def _store_rotation(
    store: Any,  # noqa: ANN401 - the store that is open
    old: "Identity",
    new: "Identity",
    network: str,
) -> None:
    """Have the node know of the rotation when it starts."""
    from meshnode.adapters.system import SystemClock
    from meshnode.cli.failure import CommandFailed
    from meshnode.services.key_fates import TABLE, record_of_end
    from protocol.lifecycle import read_statement, sign_rotation

    rows = await store.scan(TABLE, f"{old.peer}/")
    if any(key != f"{old.peer}/{new.peer}" for key, _ in rows):
        raise CommandFailed(
            f"the key {old.peer} has ended already", hint="see `meshnode keys ended`"
        )
    now_ms = SystemClock().now_ms()
    envelope = sign_rotation(old, new, network, from_ms=now_ms)
    said = read_statement(envelope, network=network, now_ms=now_ms)
    if not rows:
        await store.commit(record_of_end(envelope, said, at_ms=now_ms))


def _identity(keys: "NodeKeys") -> "Identity":
    from protocol.keys import Identity

    return Identity(keys.seed, keys.exchange_secret)


# --- files, and telling ------------------------------------------------------------------


def _write(file: Path, statement: bytes, peer: str, network: str) -> None:
    from meshnode.cli.failure import CommandFailed

    text = (
        f"# Revocation of the key {peer} in the mesh {network!r}.\n"
        "# Whoever publishes it (meshnode keys publish FILE) ends that key for good.\n"
        f"{b2a_base64(statement, newline=False).decode()}\n"
    )
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(file, flags, 0o600), "w") as stream:
            stream.write(text)
    except OSError as exc:
        raise CommandFailed(
            f"{file} can't be written: {exc.strerror}", hint="name a new file"
        ) from exc


def _read(file: Path) -> bytes:
    from meshnode.cli.failure import CommandFailed

    try:
        with file.open("rb") as stream:
            text = stream.read(_STATEMENT_BYTES_MAX)
        lines = [line for line in text.splitlines() if line and not line.startswith(b"#")]
        return a2b_base64(b"".join(lines), strict_mode=True)
    except (OSError, NotBase64) as exc:
        raise CommandFailed(
            f"{file} holds nothing that ends a key: {exc}",
            hint="`meshnode keys revoke --prepare FILE` writes one",
        ) from exc


def _publish(statement: bytes, where: Where, *, as_json: bool) -> None:
    body = {"statement": b2a_base64(statement, newline=False).decode()}
    told = answer_of(where, "POST", "/api/keys", body=body)
    if as_json:
        say_json(told)
        return
    heir = f"; {told['heir']} goes on for it" if told["heir"] else ""
    print(f"the mesh is told that the key {told['peer']} has ended{heir}")
