"""The first process inside the sandbox: lowers its own limits, then becomes the program.

The launcher hands it over compiled (`BOOT` there); it starts without site packages, so it uses built-in modules alone.
For Python it runs the program itself and tells, on a descriptor of its own, that the file compiled, and at the very end
the secret number that it was given: a program that leaves before its end never says it, whatever its exit status. For
other languages it becomes their command. Arguments: descriptor of the number, size of this code, descriptor of the
result, bytes of address space, number of processes, bytes of a file (0: no limit), mode ("run": what counts is reaching
the end; "print": what counts is the output; "exec": the command that follows).
"""


def main() -> None:
    """Runs what the arguments say."""
    import posix
    import resource
    import sys

    nonce_read, _, result, address, processes, file_bytes = (int(one) for one in sys.argv[1:7])
    mode = sys.argv[7]
    write, leave = posix.write, posix._exit
    # Held before the program can put others in their place.
    wrong, left, full, thread, again, disk = (
        AssertionError,
        SystemExit,
        MemoryError,
        RuntimeError,
        BlockingIOError,
        OSError,
    )
    limits = (
        (resource.RLIMIT_AS, address),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, 256),
    )
    for kind, value in limits:
        # Other systems than Linux refuse to limit address space.
        if value and (sys.platform == "linux" or kind != resource.RLIMIT_AS):
            resource.setrlimit(kind, (value, value))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    write(result, b"s")
    if mode == "exec":
        for descriptor, number in ((nonce_read, 3), (result, 4)):
            if descriptor != number:
                posix.dup2(descriptor, number)
        posix.execv(sys.argv[8], sys.argv[8:])
    name = sys.argv[8]
    nonce, process, current = posix.read(nonce_read, 64), posix.getpid(), posix.getpid
    posix.close(nonce_read)
    with open(name, "rb") as file:
        source = file.read()
    try:
        code = compile(source, name, "exec", dont_inherit=True)
    except BaseException as error:  # a syntax error, a null byte, nesting that the parser cannot hold
        where = f" (line {error.lineno})" if isinstance(error, SyntaxError) and error.lineno else ""
        message = error.msg if isinstance(error, SyntaxError) else error
        write(result, f"!{type(error).__name__}: {message}{where}".encode("utf-8", "replace")[:600])
        leave(1)
    write(result, b"+")

    import _thread
    import builtins

    # What `threading` tells of a thread's end when it is imported: an exception that a thread does not catch is a
    # failure of the program, though the interpreter leaves with 0.
    told, threads = _thread._excepthook, []

    def note(arguments):  # noqa: ANN001, ANN202
        if not issubclass(arguments.exc_type, left) and current() == process:
            threads.append(arguments.exc_value)
        told(arguments)

    _thread._excepthook = note

    def finish(status=None):  # noqa: ANN001, ANN202
        raise SystemExit(status)

    vars(builtins).update(exit=finish, quit=finish)  # what `site` would have brought
    module = type(sys)("__main__")
    module.__dict__.update(__builtins__=builtins, __file__=name)
    sys.modules["__main__"] = module
    sys.argv = [name]
    del sys.orig_argv[:]
    sys.path.insert(0, name.rpartition("/")[0])
    try:
        exec(code, module.__dict__)
        if mode == "run" and current() == process:
            if "threading" in sys.modules:
                sys.modules["threading"]._shutdown()  # as the interpreter would: it waits for them
            if threads:
                raise threads[0]
    except BaseException as error:
        if mode == "print" and isinstance(error, left):
            raise
        if current() != process:
            leave(1)  # a child that the program forked, which speaks for itself alone
        kind = "error"
        if isinstance(error, wrong):
            kind = "wrong"
        elif isinstance(error, left):
            kind = "error" if error.code not in (None, 0, False) else "left_early"
        elif isinstance(error, full):
            kind = "memory"
        elif isinstance(error, disk) and error.errno in (27, 28):  # EFBIG, ENOSPC
            kind = "file_size"
        elif isinstance(error, again) or (isinstance(error, thread) and error.args == ("can't start new thread",)):
            kind = "processes"
        line, trace = 0, error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == name:
                line = trace.tb_lineno
            trace = trace.tb_next
        text = f"{type(error).__name__}"
        try:
            text += f": {error}" if str(error) else ""
        except BaseException:
            text += " (whose text cannot be had)"
        write(result, f"-{kind} {text[:500]} (line {line})".encode("utf-8", "replace"))
        leave(1)
    if mode == "print":
        return
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            continue
    if current() == process:
        write(result, nonce)
    leave(0)


if __name__ == "__main__":
    main()
