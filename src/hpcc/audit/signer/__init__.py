"""The process that signs a trail, and the worker's side of it (docs/adr/0140-signer-process.md).

Problem: a worker parses what tenants, engines and guests' wardens send. With the key of its trail
in the same process, one fault in a parser gives the key away, and with it any other history.

Rule: the key is in a process that parses only its worker's messages. It signs the next record of
one worker, and what it can say itself of the records that it signed: heads, seals, statements about
indexes. `ledger` decides that and has no I/O. `slots` keeps what was decided: it is durable before
a signature leaves. `served` is the loop of the process, `process` starts it and asks it, `place` is
where its files are and how an earlier key gets there.

Example: the trail has 7 records. The worker sends records 7 and 8. The signer compares number,
previous hash, worker and form, writes both records with their signatures into its state, and
answers. If the worker is killed now, its next start asks for the state, finds that the trail lacks
two records, and writes them. If the signer is killed, the next one has the state as well, and gives
the same signatures for the same records.

What must never happen: two records with one number are both signed; a signature leaves that the
state of the next signer does not have; a text is signed that a caller chose as a whole.
"""
