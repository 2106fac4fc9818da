"""``meshnode keys certify``, ``pass``, ``withdraw``: programs with keys of their own."""

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from meshnode.cli.asking import Where, answer_of
from meshnode.cli.invite import seconds
from meshnode.cli.keys import KEY_FILE, Passphrase, known_passphrase, open_keys, told_settings
from meshnode.cli.options import Home, Json, TokenFile, Url, home_of
from meshnode.cli.printing import say_json
from protocol.app_keys import EVERYTHING, JOBS, READ

_PURPOSES: Final = {"read": [READ], "jobs": [READ, JOBS], "all": [EVERYTHING]}

AppFileName = Annotated[Path, typer.Argument(metavar="FILE", help="The app key's file.")]


def certify(
    file: AppFileName,
    *,
    for_: Annotated[
        str,
        typer.Option(
            "--for", metavar="WHAT", help="read (look), jobs (look, and submit), or all."
        ),
    ] = "read",
    name: Annotated[str, typer.Option(help="What you call the program.")] = "",
    expires: Annotated[str, typer.Option(metavar="TIME", help="Such as 12h or 90d.")] = "30d",
    passphrase_file: Passphrase = "",
    home: Home = "",
    as_json: Json = False,
) -> None:
    """Make a key for a program, certified by the node's key: what for, and until when.

    The file that it writes stands in the place of a token file: give it to the program
    and not the node's own token, which opens everything for ever.  The node need not run,
    and isn't told.  `meshnode keys withdraw` ends it early.

    Examples:
      meshnode keys certify dashboard.key --for read --name dashboard
      meshnode keys certify ci.key --for jobs --expires 90d
      meshnode jobs list --url http://127.0.0.1:8000 --token-file dashboard.key
    """
    from meshnode.adapters.system import SystemClock, SystemEntropy
    from meshnode.cli.app_files import write_app
    from meshnode.cli.failure import CommandFailed
    from protocol.app_keys import AppCertificate, sign_certificate
    from protocol.errors import LocalProtocolError
    from protocol.keys import SEED_SIZE, Identity

    if for_ not in _PURPOSES:
        raise CommandFailed(f"--for {for_!r}", hint=f"say {', '.join(_PURPOSES)}")
    path = home_of(home) / KEY_FILE
    keys = open_keys(path, known_passphrase(passphrase_file, home, path))
    node = Identity(keys.seed, keys.exchange_secret)
    seed = SystemEntropy().token(SEED_SIZE)
    app, now_ms = Identity(seed, seed), SystemClock().now_ms()
    certificate = AppCertificate(
        app=app.peer,
        name=name,
        purposes=_PURPOSES[for_],
        issued_ms=now_ms,
        expires_ms=now_ms + round(seconds(expires) * 1000),
    )
    try:
        envelope = sign_certificate(node, told_settings(home).network, certificate)
    except LocalProtocolError as exc:
        raise CommandFailed(str(exc), hint="at most 366 days, and a short name") from exc
    _write(file.absolute(), write_app(seed, envelope))
    told = {
        "file": str(file),
        "app": app.peer,
        "purposes": certificate.purposes,
        "expires_ms": certificate.expires_ms,
    }
    if as_json:
        say_json(told)
        return
    print(f"{file} lets its holder in for {for_}, for {expires}")
    print(f"to end it early: meshnode keys withdraw {app.peer}")


def pass_(file: AppFileName, *, as_json: Json = False) -> None:
    """Print a bearer token for ten minutes, for programs that only speak HTTP.

    Examples:
      meshnode keys pass dashboard.key
      curl -H "Authorization: Bearer $(meshnode keys pass dashboard.key)" $URL/api/jobs
    """
    from meshnode.cli.app_files import is_app_file, pass_of
    from meshnode.cli.failure import CommandFailed
    from meshnode.gateway.token_files import read_token

    try:
        text = read_token(file.absolute())
    except FileNotFoundError as exc:
        raise CommandFailed(
            f"there is no file {file}", hint="make one: meshnode keys certify FILE"
        ) from exc
    if not is_app_file(text):
        raise CommandFailed(
            f"{file} is no app key's file", hint="make one: meshnode keys certify FILE"
        )
    bearer = pass_of(text, where=str(file))
    if as_json:
        say_json({"bearer": bearer})
    else:
        print(bearer)


def withdraw(
    app: Annotated[str, typer.Argument(metavar="APP", help="The app key's PeerId.")],
    *,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Let the program with that key in no more, from now on.

    Examples:
      meshnode keys withdraw 12D3KooWQggzXf6F21mEtfYp27qsdxsUJwXqzRe3SZimkfYocyJZ
    """
    told = answer_of(Where(home, url, token_file), "POST", f"/api/apps/{app}/withdraw")
    if as_json:
        say_json(told)
    else:
        print(f"{told['app']} is let in no more")


def _write(file: Path, text: str) -> None:
    from meshnode.cli.failure import CommandFailed

    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(file, flags, 0o600), "w") as stream:
            stream.write(f"{text}\n")
    except OSError as exc:
        raise CommandFailed(
            f"{file} can't be written: {exc.strerror}", hint="name a new file"
        ) from exc
