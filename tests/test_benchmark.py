"""What the benchmark trains is what a study does."""

from scripts.benchmark import PACKS, mixed_configs


def test_the_packs_of_the_benchmark_are_mixed_as_those_of_a_study_are() -> None:
    configs = mixed_configs("before", "float32", max(PACKS))
    assert len({config.pack_key() for config in configs}) == 1
    assert {config.norm for config in configs} == {"before"}
    assert len({config.activation for config in configs}) == 8
    assert len({config.slope_mode for config in configs}) == 3  # fixed, learnable and none
    assert configs[:4] == mixed_configs("before", "float32", 4)
