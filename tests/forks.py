"""Processes that start at once: forks of one that has imported what commands import.

A command spends three to five seconds on importing PyTorch and fastai, and tests run some two hundred commands. So they
fork a process that has done it, and go on as the command would: own memory, folder, environment, output and status.
"""
import atexit
import json
import os
import runpy
import subprocess
import sys
import traceback
from tempfile import TemporaryFile

imports = ('fastai.vision.all', 'fastai.callback.tracker', 'matplotlib.pyplot', 'pandas', 'sklearn.neighbors',
           'mnist_fastai.train', 'mnist_fastai.cli')  # not ONNX Runtime: it starts a thread, and forks have none


class Forks:
    "Run commands in forks of one process"
    def __init__(self):
        self.process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)

    def run(self, exe, args, cwd, env):
        "As `subprocess.run` with captured output and without input"
        with TemporaryFile('w+') as out, TemporaryFile('w+') as err:
            files = [f'/proc/{os.getpid()}/fd/{o.fileno()}' for o in (out, err)]
            asked = dict(argv=[exe, *args], cwd=str(cwd), env=env, files=files)
            print(json.dumps(asked), file=self.process.stdin, flush=True)
            code = int(self.process.stdout.readline())
            for o in (out, err): o.seek(0)
            return subprocess.CompletedProcess([exe, *args], code, out.read(), err.read())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def next_command():
    "Fork for each line of standard input, and return in the fork"
    for line in sys.stdin:
        asked = json.loads(line)
        if not (child := os.fork()):
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for to, file in enumerate(asked['files'], 1): os.dup2(os.open(file, os.O_RDWR | os.O_APPEND), to)
            os.chdir(asked['cwd'])
            os.environ.clear()
            os.environ.update(asked['env'])
            return asked['argv']
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    os._exit(0)


def exit_code():
    "Run the command of `sys.argv` as the main program, to its exit status"
    try: runpy.run_path(sys.argv[0], run_name='__main__')
    except SystemExit as e:
        if e.code is None or isinstance(e.code, int): return e.code or 0
        print(e.code, file=sys.stderr)
    except BaseException: traceback.print_exc()
    else: return 0
    return 1


if __name__ == '__main__':
    for module in imports: __import__(module)
    sys.argv = next_command()
    code = exit_code()
    atexit._run_exitfuncs()
    for file in (sys.stdout, sys.stderr): file.flush()
    os._exit(code)  # libraries that were loaded before the fork would complain of what it has not freed
