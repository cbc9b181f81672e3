"""Files appear whole or not at all, and those of others stay as they are."""
import os
import stat
import sys

import pytest

from mnist_fastai.utils import atomic_file, shell_command


def write(file, text='new'):
    with atomic_file(file, 'w') as f: f.write(text)


def test_a_file_is_replaced_whole_or_stays(tmp_path):
    write(tmp_path/'a', 'old')
    with pytest.raises(ZeroDivisionError), atomic_file(tmp_path/'a', 'w') as f: f.write(str(1/0))
    assert (tmp_path/'a').read_text() == 'old'
    write(tmp_path/'a')
    assert (tmp_path/'a').read_text() == 'new' and [*tmp_path.iterdir()] == [tmp_path/'a']


@pytest.mark.fault('hostile or damaged files')
def test_a_link_is_not_written_through_nor_replaced(tmp_path):
    (tmp_path/'mine').write_text('mine')
    (tmp_path/'link').symlink_to(tmp_path/'mine')
    (tmp_path/'nowhere').symlink_to(tmp_path/'none')
    for name in ('link', 'nowhere'):
        with pytest.raises(ValueError, match='is a link to another file'): write(tmp_path/name)
        assert (tmp_path/name).is_symlink()
    assert (tmp_path/'mine').read_text() == 'mine' and not (tmp_path/'none').exists()


@pytest.mark.skipif(sys.platform == 'win32', reason='devices and pipes of Unix')
def test_a_device_or_a_pipe_is_written_to_and_not_replaced(tmp_path):
    write('/dev/null')
    assert stat.S_ISCHR(os.stat('/dev/null').st_mode)
    os.mkfifo(pipe := tmp_path/'pipe')
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write(pipe)
    assert os.read(reader, 9) == b'new' and stat.S_ISFIFO(os.stat(pipe).st_mode)
    os.close(reader)


def test_a_folder_is_named_and_keeps_its_files(tmp_path):
    with pytest.raises(IsADirectoryError, match='a file is expected'): write(tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_dash_is_standard_output(capsys):
    write('-')
    assert capsys.readouterr().out == 'new'


def test_a_command_is_named_as_the_shell_finds_it(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    assert shell_command('mnist-train').endswith('bin/mnist-train')
    (tmp_path/'mnist-train').write_text('#!/bin/sh\n')
    (tmp_path/'mnist-train').chmod(0o755)
    assert shell_command('mnist-train', '--out', 'my run') == "mnist-train --out 'my run'"
    monkeypatch.setattr(sys, 'executable', str(tmp_path/'python'))
    assert shell_command('mnist-read', 3) == f'{tmp_path}/python -m mnist_fastai read 3'
