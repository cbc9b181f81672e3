"""ONNX Runtime for browsers, which the page "Try it" runs on: two files of a package of npm, pinned."""
import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

package = 'onnxruntime-web@1.30.0'
integrity = 'sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=='
names = 'ort.wasm.bundle.min.mjs', 'ort-wasm-simd-threaded.wasm'


def download(folder):
    "The package, as npm is set up to get it; `OSError` says why if it cannot be got"
    npm = shutil.which('npm')
    if not npm: raise OSError('there is no npm')
    options = '--loglevel=error', '--fetch-retries=1', f'--pack-destination={folder}'
    done = subprocess.run([npm, 'pack', package, *options], capture_output=True, text=True)
    found = [*Path(folder).glob('*.tgz')]
    if done.returncode or not found: raise OSError(f'npm cannot get {package}: {" ".join(done.stderr.split())[:200]}')
    return found[0]


def runtime(cache):
    "The two files' folder, below the folder `cache`: downloaded once; `ValueError` if it is not what was pinned"
    folder = Path(cache)/package
    if folder.is_dir(): return folder
    Path(cache).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as new:
        file = download(new)
        got = 'sha512-' + base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode()
        if got != integrity: raise ValueError(f'{package} is {got}: expected {integrity}')
        (unpacked := Path(new)/'files').mkdir()
        with tarfile.open(file) as tar:
            for name in names: (unpacked/name).write_bytes(tar.extractfile(f'package/dist/{name}').read())
        unpacked.rename(folder)
    return folder
