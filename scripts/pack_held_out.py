"""Put the held-out digits into the package, so that the demo needs no scikit-learn.

    python scripts/pack_held_out.py

The split is drawn, and what comes out is the same, every time.
"""

import numpy as np

from prism.demo import digits
from prism.models.held_out import HELD_OUT_FILE

if __name__ == "__main__":
    ink, labels = digits.dataset()
    chosen = digits.held_out_rows(labels)
    target = digits.model_path() / HELD_OUT_FILE
    np.savez_compressed(target, images=ink[chosen], labels=labels[chosen].astype(np.uint8))
    print(f"{target}: {target.stat().st_size} bytes")
