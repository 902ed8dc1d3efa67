"""Several nodes as one: processes, messages, membership, and the head that owns requests.

`control` defines the messages, `tensors` their payloads, `keys` the cluster secret, `membership`
who is alive, `node` the daemon on each device, `head` the owner of requests, `session` what a
program holds in its hands, `local` node processes on this machine.
"""
