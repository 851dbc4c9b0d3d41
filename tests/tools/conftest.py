import sys
from pathlib import Path

# tools import one another, as scripts of one folder do
sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
