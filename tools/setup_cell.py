# @title On Colab and Kaggle: fetch the project and install what is missing (elsewhere: nothing)
import importlib
import os
import subprocess
import sys

THERE = {"COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"} & set(os.environ)
if THERE and not os.path.exists("../mclip_helpers"):  # else this cell has done its work before
    address = "ADDRESS_OF_THE_PROJECT"
    project = os.path.abspath(address.rpartition("/")[2])
    commands = [[sys.executable, f"{project}/tools/install_missing.py"]]
    if not os.path.exists(project):  # a restart leaves it there, and all that was saved in runs/
        commands.insert(0, ["git", "clone", "--quiet", "--depth", "1", address, project])
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            cure = "Is there a network? (On Kaggle: Settings, Turn on internet.) Then try again."
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr.strip()}\n{cure}")
    print(done.stdout.strip())
    importlib.invalidate_caches()
    sys.path.insert(0, project)
    os.chdir(f"{project}/notebooks")
# To keep on Google Drive what you train, mount it and run this once in a cell of its own:
# !mkdir -p /content/drive/MyDrive/mobileclip && ln -sT /content/drive/MyDrive/mobileclip ../runs
