"""How slides are taken apart into stains, by the formulas of the papers, on all pixels at once."""

from __future__ import annotations

import numpy as np

BETA = 0.15


def density_of(pixels, white=240.0):
    return -np.log((pixels.reshape(-1, 3).astype(float) + 1) / white)


def macenko_fit(pixels, white=240.0):
    """Macenko et al. 2009, as torchstain has it; amounts of tissue alone."""
    od = density_of(pixels, white)
    tissue = od[~(od < BETA).any(1)]
    plane = np.linalg.eigh(np.cov(tissue.T))[1][:, [1, 2]]
    plane[:, 1] *= np.sign(plane[:, 1].sum())
    angles = np.arctan2(*(tissue @ plane).T)
    ends = [plane @ [np.sin(a), np.cos(a)] for a in np.percentile(angles, [1, 99])]
    stains = np.array(sorted(ends, key=lambda v: -v[0]))
    amounts = np.linalg.lstsq(stains.T, od.T, rcond=None)[0]
    return stains, amounts, np.percentile(amounts[:, od.max(1) >= BETA], 99, axis=1)


def amounts_of(density, stains, penalty):
    """The non-negative lasso of two stains, by trying all four sets of them."""
    toward, shared = density @ stains.T - penalty, stains @ stains.T
    both = np.linalg.solve(shared, toward.T).T
    tried = [both, toward * [1, 0], toward * [0, 1], toward * 0]
    costs = [
        np.where(
            (a < -1e-12).any(1),
            np.inf,
            0.5 * ((density - a @ stains) ** 2).sum(1) + penalty * a.sum(1),
        )
        for a in tried
    ]
    return np.array(tried)[np.argmin(costs, 0), np.arange(len(density))]


def learned(density, steps=400):
    """Vahadane et al. 2016, equation 4, by alternating least squares from the published stains."""
    stains = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
    for _ in range(steps):
        before, amounts = stains.copy(), amounts_of(density, stains, 0.1)
        for k in range(2):
            rest = density - np.delete(amounts, k, 1) @ np.delete(stains, k, 0)
            stain = np.maximum(rest.T @ amounts[:, k], 0)
            stains[k] = stain / np.linalg.norm(stain)
        if np.abs(stains - before).max() < 1e-6:
            break
    return stains


def vahadane_fit(pixels, white=240.0):
    """Vahadane et al. 2016: stains, amounts (n, 2), and their 99th percentiles over tissue."""
    density = density_of(pixels, white)
    tissue = density.max(1) >= BETA
    stains = learned(density[tissue])
    amounts = amounts_of(density, stains, 0.01)
    return stains, amounts, np.percentile(amounts[tissue], 99, axis=0)
