"""`mnist-app` or `mnist-serve` in a process of its own, of this installation or of one as small as the container's."""
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

root = Path(__file__).parents[1]

# A proxy that nobody listens on: every connection fails at once, as on a machine without a network.
offline = dict.fromkeys(('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'), 'http://127.0.0.1:9')


@contextmanager
def serving(*args, command='app', python=sys.executable, preexec_fn=None, **env):
    "The address of a page or service and the process of it, with its stderr in `log`, without a way to the internet"
    args = [*args, '--port', 0, *['--no-browser']*(command == 'app')]
    with TemporaryFile('w+') as log, subprocess.Popen(
            [python, '-m', 'mnist_fastai', command, *map(str, args)], stdout=subprocess.PIPE, stderr=log, text=True,
            preexec_fn=preexec_fn, env={**os.environ, **offline, **env}) as server:
        try:
            line, server.log = server.stdout.readline(), log
            assert ' is at http' in line, f'it did not start: {line}'
            yield re.search(r'http://\S+', line)[0], server
        finally: server.terminate()


def docker_steps():
    "What the Dockerfile installs: arguments of pip"
    return [o.split()[1:] for o in re.findall('^RUN (pip .*)$', (root/'Dockerfile').read_text(), re.M)]


def install_space(folder):
    "What `docker build` does, in a virtual environment instead of an image: the environment's folder"
    subprocess.run(['make', '--silent', 'space', f'SPACE={folder}/space'], cwd=root, check=True)
    subprocess.run([sys.executable, '-m', 'venv', folder/'venv'], check=True)
    for step in docker_steps():
        subprocess.run([folder/'venv/bin/python', '-m', 'pip', '--quiet', *step], cwd=folder/'space', check=True)
    return folder/'venv'
