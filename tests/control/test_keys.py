import stat

import pytest

from prism.control import keys
from prism.errors import ConfigError


def test_a_secret_is_for_its_owner_only_and_reads_back(tmp_path):
    path, secret = tmp_path / "cluster.key", keys.generate()
    keys.save(secret, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.read(path) == secret
    assert secret.private.decode() not in repr(secret)


def test_a_secret_is_never_overwritten(tmp_path):
    path = tmp_path / "cluster.key"
    keys.save(keys.generate(), path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"cluster\.key exists"):
        keys.save(keys.generate(), path)
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        keys.save(keys.generate(), tmp_path / "nowhere" / "cluster.key")


def test_a_missing_secret_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigError, match="prism keygen"):
        keys.read(tmp_path / "cluster.key")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"[]",
        b'{"public": "x"}',
        b'{"public": 1, "private": 2}',
        b'{"public": "x", "private": "short"}',
    ],
)
def test_a_corrupt_secret_is_refused_by_its_path(tmp_path, content):
    path = tmp_path / "cluster.key"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"cluster\.key is no cluster secret"):
        keys.read(path)


def test_halves_of_different_secrets_are_refused(tmp_path):
    path, a, b = tmp_path / "cluster.key", keys.generate(), keys.generate()
    keys.save(keys.Secret(a.public, b.private), path)
    with pytest.raises(ConfigError, match="do not belong together"):
        keys.read(path)
