"""What needs torch but no vLLM. Without a GPU a double stands in for CUDA's streams and events; the tests are the same."""

import sys
from pathlib import Path

CLIENT = Path(__file__).resolve().parents[3] / "clients" / "python"
sys.path[:0] = [str(CLIENT / "src"), str(CLIENT / "tests")]
