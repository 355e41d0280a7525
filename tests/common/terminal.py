"""Sits at a terminal before a command: terminal.py STEPS COMMAND...

STEPS is a JSON list of ["expect", TEXT], ["send", TEXT] and ["kill", SIGNAL NUMBER]. At the end the command must end by
itself with the code of ["code", N], and the terminal must be as it was. Prints what the command wrote."""

import json, os, pty, select, signal, sys, termios, time

steps, command = json.loads(sys.argv[1]), sys.argv[2:]
deadline = time.time() + 20
pid, terminal = pty.fork()
if pid == 0:
    # The command can do nothing before the parent knows how its terminal looked.
    os.read(0, 1)
    os.execvp(command[0], command)
before = termios.tcgetattr(terminal)[:4]
os.write(terminal, b"\n")
seen = bytearray()
position = 0


def fail(what):
    sys.stdout.buffer.write(bytes(seen))
    print(f"\n--- {what}", file=sys.stderr)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    sys.exit(1)


def read(until):
    """Reads more; False at the end of the output."""
    while True:
        if time.time() > deadline:
            fail(f"not in time: {until}")
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                data = os.read(terminal, 65536)
            except OSError:
                return False
            # An editor that asks where the cursor is gets an answer, as from any terminal.
            if b"\x1b[6n" in data:
                os.write(terminal, b"\x1b[1;1R")
            seen.extend(data)
            return bool(data)


code = 0
for kind, value in steps:
    if kind == "expect":
        while (found := seen.find(value.encode(), position)) < 0:
            if not read(value):
                fail(f"ended without {value!r}")
        position = found + len(value.encode())
    elif kind == "send":
        os.write(terminal, value.encode())
    elif kind == "kill":
        os.kill(pid, value)
    elif kind == "code":
        code = value
while True:
    ended, status = os.waitpid(pid, os.WNOHANG)
    if ended:
        break
    if time.time() > deadline:
        fail("did not end")
    if select.select([terminal], [], [], 0.05)[0]:
        try:
            seen.extend(os.read(terminal, 65536))
        except OSError:
            pass
after = termios.tcgetattr(terminal)[:4]
sys.stdout.buffer.write(bytes(seen))
if after != before:
    print(f"--- the terminal is not as it was: {before} {after}", file=sys.stderr)
    sys.exit(1)
if os.waitstatus_to_exitcode(status) != code:
    print(f"--- ended with {os.waitstatus_to_exitcode(status)}", file=sys.stderr)
    sys.exit(1)
