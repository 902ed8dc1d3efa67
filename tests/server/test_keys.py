import pytest

from prism.errors import ConfigError
from prism.server.keys import ApiKeys

KEY = "sixteen letters or more"


def test_without_keys_everybody_may_ask():
    assert not ApiKeys()
    assert ApiKeys().accept("")


def test_only_a_known_key_is_accepted():
    keys = ApiKeys([KEY, "another key of some length"])
    assert keys.accept(f"Bearer {KEY}")
    assert keys.accept(f"bearer  {KEY} ")
    for wrong in ("", "Bearer", "Bearer ", KEY, f"Basic {KEY}", f"Bearer {KEY[:-1]}"):
        assert not keys.accept(wrong)


def test_a_name_tells_keys_apart_and_not_the_key():
    keys = ApiKeys([KEY])
    assert keys.name_of(f"Bearer {KEY}") == keys.name_of(f"bearer {KEY} ")
    assert keys.name_of(f"Bearer {KEY}") != keys.name_of("Bearer another")
    assert KEY[:4] not in keys.name_of(f"Bearer {KEY}")


@pytest.mark.parametrize(
    ("content", "said"), [("", "holds no API key"), ("# none\n", "no API key"), ("short", "16")]
)
def test_a_file_without_usable_keys_is_refused(tmp_path, content, said):
    path = tmp_path / "keys"
    path.write_text(content)
    with pytest.raises(ConfigError, match=said):
        ApiKeys.read(path)
