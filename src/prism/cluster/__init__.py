"""Several nodes as one: processes, messages, membership, and the head that owns requests.

What both ends share: `control` defines the messages, `tensors` their payloads, `keys` the cluster
secret, `emulated` the link of a local cluster. On each device `node` computes, `line` talks to the
head, `lifetime` ends the process, `hardware` says what it is. At the head, `switchboard` owns the
sockets, `admission` and `membership` decide who is in, `head` owns the questions to nodes,
`dispatch` runs one attempt, `model` answers requests whatever happens, and `session` is what a
program holds in its hands; `start` makes one, with the processes of `local` or from `config`.
"""
