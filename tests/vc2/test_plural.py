from vc2.plural import plural


def test_one_is_one_and_others_are_many():
    assert [plural(n, "tar") for n in (0, 1, 2, 60_000)] == ["0 tars", "1 tar", "2 tars", "60,000 tars"]
