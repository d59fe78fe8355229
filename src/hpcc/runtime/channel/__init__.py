"""Where a guest's bytes are parsed.

The problem: a guest runs a tenant's code, so an attacker may control every byte that the guest
sends. The guest speaks HTTP/2, gRPC and protobuf. Those parsers are large, and a bug in one of them
would run in the worker, which holds the keys and the stores of all tenants.

The rule: no process that holds a secret parses what a guest sends. Bytes pass three stations:

- `warden` starts one process for each guest, the warden (`hpcc.warden`). It has a memory and CPU
  limit, a system call filter and, if the worker is root, a separate uid. It parses HTTP/2 and
  protobuf and passes on frames of a fixed layout (`hpcc.wire.warden`).
- `channel` and `call` read those frames in the worker. Each frame has a length that is checked
  before the frame is read. Credit bounds how many may be under way.
- `replies` and `output_order` check what the frames mean. They treat the warden as if it had been
  taken over: sizes, order, paths, statuses and times are checked again.

An example: a guest sends an output `../../etc/passwd`. The warden passes the path on as text.
`OutputOrder.take` finds it neither declared nor below an output directory and returns False.
`ReplyChecker` raises `IntegrityError`, the channel retires the guest with the reason
`protocol-violation`, and the exec raises `GuestLostError`. The pool ends the guest. The client gets
no output from it.

What must never happen:

- The worker decodes a protobuf message, an HTTP/2 frame or a path that came from a guest without
  these checks.
- A breach is treated as a result of the compile. A breach ends the guest, and no result of it is
  stored.
- One guest's breach, silence or flood delays or ends another guest. Each has its own warden, and
  each wait has a deadline.
- Text from a guest reaches a log or a terminal without `printable`.
"""
