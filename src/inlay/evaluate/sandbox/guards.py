"""What is put around a program, language by language, so that it tells when its tests came to their end.

A guard reads the secret number (descriptor 3) before the program begins and writes it (descriptor 4) only once the last
line of the file, or the end of `main`, was reached, no test had failed anywhere in the process, and nothing was left
waiting for ever. An exit status of 0 is not enough in any language: ordinary code leaves with it early (`exit`, `errx`,
`pthread_exit`, `return` at the top level), swallows the failed assertion (a handler of uncaught exceptions, a trap), or
fails where nobody looks (another thread, a promise that never settles). A guard holds against code that is wrong, not
against code that looks for it; see `inlay.evaluate.sandbox.bubblewrap`. Python's is in `runner`.
"""

import re

C = r"""
#include <unistd.h>
static volatile int inlay_returned;
static volatile pid_t inlay_process;
int __real_main(int, char **, char **);
int __wrap_main(int count, char **words, char **environment) {
  inlay_process = getpid();
  int status = __real_main(count, words, environment);
  inlay_returned = 1;
  return status;
}
__attribute__((destructor)) static void inlay_end(void) {
  char text[1 + 32] = "+";
  if (!inlay_returned || getpid() != inlay_process) return;
  if (read(3, text + 1, 32) == 32 && write(4, text, 33) == 33) return;
}
"""
"""Linked into C, C++ and Rust in the place of `main`: the number is said when the program's own `main` returned, not
when the process ended from any other place in any library, nor by a child that the program forked."""

JAVA = """
import java.io.*;
public class InlayGuard extends ThreadGroup {
  private static volatile boolean failed;
  private InlayGuard() { super("main"); }
  @Override public void uncaughtException(Thread thread, Throwable error) {
    if (!(error instanceof ThreadDeath)) failed = true;
    super.uncaughtException(thread, error);
  }
  public static void main(String[] arguments) throws Exception {
    byte[] text = new byte[33];
    text[0] = '+';
    try (FileInputStream in = new FileInputStream("/proc/self/fd/3")) { in.readNBytes(text, 1, 32); }
    FileOutputStream out = new FileOutputStream("/proc/self/fd/4");
    java.lang.reflect.Method start = Class.forName(arguments[0]).getDeclaredMethod("main", String[].class);
    start.setAccessible(true);
    InlayGuard group = new InlayGuard();
    new Thread(group, () -> {
      try {
        start.invoke(null, (Object) new String[0]);
      } catch (java.lang.reflect.InvocationTargetException error) {
        InlayGuard.<RuntimeException>raise(error.getCause());
      } catch (IllegalAccessException error) {
        throw new IllegalStateException(error);
      }
    }, "main", 16L << 20).start();
    for (Thread one; (one = group.waitsFor()) != null; ) one.join();
    if (failed) Runtime.getRuntime().exit(1);
    out.write(text);
    out.close();
  }
  private Thread waitsFor() {
    Thread[] all = new Thread[activeCount() + 64];
    for (int i = enumerate(all); i-- > 0; ) if (!all[i].isDaemon()) return all[i];
    return null;
  }
  @SuppressWarnings("unchecked")
  private static <T extends Throwable> void raise(Throwable error) throws T { throw (T) error; }
}
"""
"""Started in the place of the program's class, whose threads all belong to this group: an exception that one of them
does not catch is a failure, whoever handles it afterwards. The JVM itself looks at the first thread alone."""

JAVASCRIPT = """
const fs = require("fs"), vm = require("vm"), wrap = require("module").wrap, { promiseHooks } = require("v8");
const name = process.argv[1], nonce = Buffer.alloc(32), write = fs.writeSync, ending = ";__inlay_end();";
const length = fs.readSync(3, nonce, 0, 32);
fs.closeSync(3);
const checked = /[.]c?js$/.test(name);
if (checked) {
  let text = fs.readFileSync(name, "utf8").replace(/^#!.*/, "");
  if (text.endsWith(ending)) text = text.slice(0, -ending.length);
  try { new vm.Script(wrap(text), { filename: name }); }
  catch (error) { write(4, "!" + error); process.reallyExit(1); }
}
write(4, checked ? "+" : "?");
let reached = false, failed = false, natural = false, waiting = 0, racing = 0;
Object.defineProperty(globalThis, "__inlay_end", { value() { reached = true; } });
// Code that waits for a promise which never settles does not go on, and node then leaves with 0. A promise with a
// parent is such a wait (`await`, `then`); the losers of a race may wait for ever.
const unsettled = new WeakSet();
if (promiseHooks) promiseHooks.createHook({
  init(promise, parent) { if (parent !== undefined && !racing) { unsettled.add(promise); waiting++; } },
  settled(promise) { if (unsettled.delete(promise)) waiting--; },
});
for (const key of ["race", "any"]) {
  const original = Promise[key], call = Reflect.apply;
  const counted = { [key](...all) { racing++; try { return call(original, this, all); } finally { racing--; } } }[key];
  Object.defineProperty(Promise, key, { value: counted, writable: true, configurable: true });
}
// Handlers of the program's do not make a failure good.
const emit = process.emit, call = Reflect.apply, exit = process.exit;
process.emit = function (event, ...all) {
  if (event === "uncaughtExceptionMonitor" || event === "unhandledRejection") failed = true;
  return call(emit, this, [event, ...all]);
};
process.exit = function (...all) { natural = false; failed = true; return call(exit, this, all); };
process.on("beforeExit", () => { natural = true; });
process.on("exit", (status) => {
  // node's own test runner says itself when a test of its never ended, and keeps promises of its own.
  const runner = process.moduleLoadList.some((one) => /test_runner.(harness|runner)/.test(one));
  if (reached && natural && !failed && !status && (runner || !waiting)) write(4, nonce, 0, length);
});
"""
"""Loaded before the program."""

JAVASCRIPT_ENDING = "\n;__inlay_end();"
"""The last line of the program's file: `return` at the top level of a script does not come to it."""

BASH = r"""
IFS= read -r -N 32 -u 3 __inlay_number; exec 3<&-
bash -n "$1" || { printf '!' >&4; exit 2; }
printf '+' >&4
__inlay_reached=
__inlay_end() { __inlay_reached=$1; }
. "$1"
__inlay_status=$?
[ -n "$__inlay_reached" ] && __inlay_status=$__inlay_reached
[ "$__inlay_reached" = 0 ] && printf %s "$__inlay_number" >&4
exit "$__inlay_status"
"""
"""Sources the program: neither its `exit` nor `return`, nor a failed command under `set -e`, reaches its last line."""

BASH_ENDING = '\n\n__inlay_end "$?"\n'
"""The last line of the program's file; the status before it is the program's."""

GO = """package main

import (
\t"io"
\t"os"
)

func main() {
\ttext := make([]byte, 33)
\ttext[0] = '+'
\tio.ReadFull(os.NewFile(3, "number"), text[1:])
\tinlayProgram()
\tos.NewFile(4, "result").Write(text)
}
"""
"""Compiled beside the program, whose own `main` has another name: `os.Exit` in it never comes back here."""

CSHARP = """
using System;
using System.IO;
using System.Reflection;
using System.Threading.Tasks;
static class InlayGuard {
  static int Main(string[] arguments) {
    var text = new byte[33];
    text[0] = (byte) '+';
    using (var input = new FileStream("/proc/self/fd/3", FileMode.Open, FileAccess.Read))
      for (int at = 1, got; at < text.Length && (got = input.Read(text, at, text.Length - at)) > 0; ) at += got;
    MethodInfo start = null;
    var all = BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.DeclaredOnly;
    foreach (var one in typeof(InlayGuard).Assembly.GetTypes())
      if (one != typeof(InlayGuard))
        foreach (var method in one.GetMethods(all)) if (method.Name == "Main") start = start ?? method;
    object result;
    try {
      result = start.Invoke(null, start.GetParameters().Length == 0 ? null : new object[] { arguments });
    } catch (TargetInvocationException error) {
      System.Runtime.ExceptionServices.ExceptionDispatchInfo.Capture(error.InnerException).Throw();
      throw;
    }
    if (result is Task) ((Task) result).GetAwaiter().GetResult();
    int status = result is int ? (int) result : result is Task<int> ? ((Task<int>) result).Result : 0;
    if (status == 0)
      using (var output = new FileStream("/proc/self/fd/4", FileMode.Open, FileAccess.Write))
        output.Write(text, 0, text.Length);
    return status;
  }
}
"""
"""Started in the place of the program's `Main`; `Environment.Exit` in it never comes back here."""

_GO_MAIN = re.compile(r"^func\s+main\s*\(\s*\)", re.MULTILINE)


def go(source: str) -> str:
    """A Go program whose `main` is called by the guard (`GO`)."""
    return _GO_MAIN.sub("func inlayProgram()", source, count=1)
