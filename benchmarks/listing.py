"""`stillhouse list` with 0, 50 and 500 plugins, against `llm models list` with 50.

Each is a real command in a virtual environment of its own that this script makes. The plugins are
minimal real ones for their tool: metadata and a module that defines one model. Budgets: 50 plugins
at most 0.25 of llm's time, 500 plugins at most twice the time of none.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from measure import alternate, command_seconds, machine, median, print_rows

ROOT = Path(__file__).parents[1]

STILLHOUSE_MODULE = """
from stillhouse import LLM

class PluginLLM(LLM):
    @property
    def model_name(self):
        return "{name}"

    def generate(self, inputs, num_generations=1):
        return []
"""

LLM_MODULE = """
import llm

@llm.hookimpl
def register_models(register):
    register(PluginModel())

class PluginModel(llm.Model):
    model_id = "{name}"

    def execute(self, prompt, stream, response, conversation):
        yield ""
"""


def make_environment(folder: Path, *packages: str | Path) -> Path:
    """A virtual environment with these packages; its site-packages."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(
        subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    )


def add_plugins(site: Path, count: int, group: str, attribute: str, module: str) -> None:
    """Install plugins as pip would leave them: a module, and a folder of metadata."""
    for number in range(count):
        name = f"bench-plugin-{number:03}"
        package = name.replace("-", "_")
        (site / f"{package}.py").write_text(module.format(name=name))
        info = site / f"{package}-1.0.0.dist-info"
        info.mkdir()
        requires = "stillhouse>=0.1,<1" if "stillhouse" in group else "llm"
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0.0\n"
            f"Summary: Plugin number {number} of a benchmark\nRequires-Dist: {requires}\n"
            "License-Expression: Apache-2.0\n\n" + "A long description. " * 100
        )
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {package}{attribute}\n")
        (info / "RECORD").write_text("")
        (info / "INSTALLER").write_text("pip\n")
    subprocess.run([sys.executable, "-m", "compileall", "-q", site], check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        commands = {}
        for count in (0, 50, 500):
            site = make_environment(home / f"stillhouse{count}", ROOT / "core")
            add_plugins(site, count, "stillhouse.llms", ":PluginLLM", STILLHOUSE_MODULE)
            commands[f"stillhouse list, {count} plugins"] = [
                home / f"stillhouse{count}/bin/stillhouse",
                "list",
            ]
        site = make_environment(home / "llm", "llm")
        add_plugins(site, 50, "llm", "", LLM_MODULE)
        commands["llm models list, 50 plugins"] = [home / "llm/bin/llm", "models", "list"]
        # Neither finds a config file or a database of the person who measures.
        env = {
            **os.environ,
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "LLM_USER_PATH": str(home),
        }
        bare = [home / "stillhouse0/bin/python", "-c", "pass"]
        subjects = {"python -c pass": lambda: command_seconds(bare, env)}
        for name, command in commands.items():
            subjects[name] = lambda command=command: command_seconds(command, env)
        readings = alternate(subjects, arguments.rounds)
    print_rows("time of the whole command", readings, "ms", 1000)
    none, fifty, many = (median(readings[f"stillhouse list, {count} plugins"]) for count in (0, 50, 500))
    rival = median(readings["llm models list, 50 plugins"])
    print(f"\n50 plugins, against llm: {fifty / rival:.3f} (budget 0.25)")
    print(f"500 plugins, against 0:  {many / none:.2f} (budget 2)")


if __name__ == "__main__":
    main()
