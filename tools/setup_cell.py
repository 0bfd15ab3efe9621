# @title On Colab and Kaggle: fetch the project and install what is missing (elsewhere: nothing)
import importlib
import os
import subprocess
import sys

ADDRESS = "ADDRESS_OF_THE_PROJECT"
THERE = {"COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"} & set(os.environ)


def run_or_stop(*command: str) -> str:
    """What the command printed; an error with its message, and what to do, if it failed."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        cure = "Is there a network? (On Kaggle: Settings, Turn on internet.) Then run this again."
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr.strip()}\n{cure}")
    return done.stdout.strip()


if THERE and not os.path.exists("../mclip_helpers"):  # else this cell has done its work before
    project = os.path.abspath(ADDRESS.rpartition("/")[2])
    if not os.path.exists(project):  # a restart leaves it there, and all that was saved in runs/
        run_or_stop("git", "clone", "--quiet", "--depth", "1", ADDRESS, project)
    print(run_or_stop(sys.executable, f"{project}/tools/install_missing.py"))
    importlib.invalidate_caches()
    sys.path.insert(0, project)
    os.chdir(f"{project}/notebooks")
# To keep on Google Drive what you train, mount it and run this once in a cell of its own:
# !mkdir -p /content/drive/MyDrive/mobileclip && ln -sT /content/drive/MyDrive/mobileclip ../runs
