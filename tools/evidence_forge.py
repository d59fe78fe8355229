"""Helps tools/evidence_demo.sh: finds the object of a statement, and makes forgeries.

object STATEMENT DIR      print the file of DIR that the statement is about
message RECORDS OUT SIG   write what a worker signed of the first record, and the signature
claim IN OUT              a statement says another isolation; all else is as it was
resign IN OUT             all signatures of the maker are made again, with a key of the forger
trail DIR                 the first row of a trail says another isolation
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import zipfile
from pathlib import Path


def _object(statement: str, directory: str) -> None:
    payload = json.loads(base64.b64decode(json.loads(Path(statement).read_bytes())["payload"]))
    wanted = {subject["digest"]["sha256"] for subject in payload["subject"]}
    for path in sorted(Path(directory).iterdir()):
        if hashlib.sha256(path.read_bytes()).hexdigest() in wanted:
            print(path)
            return
    sys.exit("no file has a digest of the statement")


def _message(records: str, message: str, signature: str) -> None:
    table = json.loads(Path(records).read_bytes().splitlines()[0])
    kind, payload = table["payloadType"].encode(), base64.b64decode(table["payload"])
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    Path(message).write_bytes(signed)
    Path(signature).write_bytes(base64.b64decode(table["signatures"][0]["sig"]))


def _files(path: str) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def _claim(source: str, target: str) -> None:
    from hpcc.evidence.forms.container import pack_files

    files = _files(source)
    lines = files["objects.intoto.jsonl"].splitlines()
    table = json.loads(lines[0])
    payload = base64.b64decode(table["payload"])
    forged = payload.replace(b"qemu/tcg", b"firecracker/kvm").replace(
        b"qemu/kvm", b"firecracker/kvm"
    )
    table["payload"] = base64.b64encode(forged).decode()
    lines[0] = json.dumps(table, sort_keys=True, separators=(",", ":")).encode()
    files["objects.intoto.jsonl"] = b"".join(line + b"\n" for line in lines)
    Path(target).write_bytes(pack_files(files))


def _resign(source: str, target: str) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from hpcc.evidence.forms.container import pack_files
    from hpcc.evidence.forms.dsse import seal_statement
    from hpcc.evidence.keys import key_id_of

    key = Ed25519PrivateKey.generate()
    files = _files(source)
    for name in ("link.dsse.json", "vsa.dsse.json", "objects.intoto.jsonl"):
        lines = files[name].splitlines()
        payloads = [base64.b64decode(json.loads(line)["payload"]) for line in lines]
        key_id = key_id_of(key.public_key().public_bytes_raw())
        end = b"\n" if name.endswith("jsonl") else b""
        files[name] = b"".join(seal_statement(p, key_id, key.sign) + end for p in payloads)
    Path(target).write_bytes(pack_files(files))


def _trail(directory: str) -> None:
    spool = Path(directory, "spool.hpcc")
    data = spool.read_bytes()
    at = data.index(b"qemu/") + len(b"qemu/")
    spool.write_bytes(
        data[:at] + (b"kvm" if data[at : at + 3] == b"tcg" else b"tcg") + data[at + 3 :]
    )


def main() -> None:
    """Run one of the commands above."""
    commands = {
        "object": _object, "message": _message, "claim": _claim, "resign": _resign,
        "trail": _trail,
    }  # fmt: skip
    commands[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
