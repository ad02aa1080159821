"""The trainer with what Python has on Windows, where processes that read data are spawned and not forked."""

from __future__ import annotations

import pytest

from tests.training.test_resume import assert_same_bits, one_thread  # noqa: F401 (a fixture of this module, too)
from tests.vc2.test_windows import on_windows, pytestmark  # noqa: F401 (the mark is this module's too)
from vc2.training.loop import Trainer
from vc2.training.recipe_files import load_recipe


@pytest.mark.slow
def test_a_run_is_stopped_and_goes_on_to_the_same_bits(recipe_file, folder):
    """By Ctrl-C, the one signal that there is. Its readers are sent the recipe's sources, which must bear that."""
    recipe = recipe_file(data={"workers": 1})
    before = """
    import multiprocessing.resource_tracker
    multiprocessing.resource_tracker.ensure_running()  # what keeps count of semaphores here
    """
    code = """
    import multiprocessing
    import torch.utils.data._utils.signal_handling as theirs
    theirs._set_SIGCHLD_handler = lambda: None  # as torch does there
    multiprocessing.set_start_method("spawn")
    torch.set_num_threads(1)
    import vc2.files.output
    vc2.files.output.WINDOWS = True
    from vc2.training.__main__ import run_command
    from vc2.training.loop import Trainer
    step = Trainer.train_step

    def stopped_at_the_third(trainer, batch):
        if trainer.step == 2:
            signal.raise_signal(signal.SIGINT)
        return step(trainer, batch)

    command = ["run", *sys.argv[1:]]
    Trainer.train_step = stopped_at_the_third
    print(run_command(command))
    Trainer.train_step = step
    print(run_command(command))
    """
    assert on_windows(code, "--runs", folder.parent, recipe, before=before).split() == ["130", "0"]
    straight = folder.parent / "straight"
    assert Trainer(load_recipe(recipe, ["data.workers=0"]), straight).run()
    assert_same_bits(folder, straight)


def test_a_checkpoint_that_someone_reads_stays_until_the_next_save(tmp_path):
    """It is told, and the run goes on: the new checkpoint is written."""
    code = """
    import logging
    import vc2.files.output
    vc2.files.output.WINDOWS = True
    from vc2.training import checkpoint
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    folder = pathlib.Path(sys.argv[1])
    for step in range(1, 4):
        checkpoint.save(folder, step, {"model": {"x": torch.ones(5000)}}, keep=1)
        print([checkpoint.step_of(path) for path in checkpoint.all_steps(folder)])
        read = checkpoint.load(folder) if step == 1 else None
    """
    first, told, both, last = on_windows(code, tmp_path).splitlines()
    assert (first, both, last) == ("[1]", "[1, 2]", "[3]")
    assert told.startswith(f"{tmp_path / 'step-00000001.pt'} is in use and stays for now ([Errno 13]")
