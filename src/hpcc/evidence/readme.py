"""README.txt of an evidence file: the check by hand, without hpcc."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hpcc.evidence.keys import worker_word
from hpcc.evidence.model import Making

_TEXT: Final = """\
Evidence about a file, made by hpcc. docs/evidence.md of hpcc explains it.

  sha256        {digest}
  rows          {rows}

With hpcc, offline:   hpcc verify-evidence THIS.zip FILE --key maker.pem
Get maker.pem from its maker and not from this file: a forger would change both.

By hand, in an empty directory (openssl 3, cosign 2.5, jq, sha256sum):

  unzip THIS.zip && sha256sum FILE                 the digest above, as in link.dsse.json
  jq -r .payload vsa.dsse.json | base64 -d | jq    the summary, with the digest of each file
  sed -n 1p objects.intoto.jsonl > one             a statement; line N is made of line N of records
  jq -r .payload one | base64 -d | jq -r '.subject[] | .name, .digest.sha256'
  cosign verify-blob-attestation --key maker.pem --insecure-ignore-tlog \\
      --type slsaprovenance1 --signature one OBJECT
  sed -n 1p records.dsse.jsonl > row               the same row as its worker signed it
  jq -r .payload row | base64 -d > payload; jq -r .signatures[0].sig row | base64 -d > sig
  T=application/vnd.hpcc.audit-record+json
  (printf "DSSEv1 38 $T %s " $(wc -c < payload); cat payload) > message
  openssl pkeyutl -verify -rawin -pubin -inkey worker.NAME.pem -in message -sigfile sig
  sed -n 1p rows.proofs.jsonl | jq -r .            its proof, as https://c2sp.org/tlog-proof

Workers here: {workers}
"""


def readme_text(making: Making, workers: Mapping[str, bytes], rows: int) -> bytes:
    """Return the text for an evidence file with so many rows of these workers."""
    names = ", ".join(worker_word(worker) for worker in sorted(workers)) or "none"
    return _TEXT.format(digest=making.digest, rows=rows, workers=names).encode()
