import pytest
import torch
from torch import tensor

from leadkit import scores


def slow_maxsim(q, p, p_mask, q_mask):
    """Eq. (2) with one loop per letter."""
    (K, B, X, _), N = q.shape, p.shape[1]
    out = torch.zeros(K, B, N, dtype=q.dtype)
    for k in range(K):
        for b in range(B):
            for n in range(N):
                for x in range(X):
                    if q_mask is None or q_mask[b, x]:
                        out[k, b, n] += max(
                            q[k, b, x] @ p[k, n, y] for y in range(p.shape[2]) if p_mask[n, y]
                        )
    return out


@pytest.fixture
def tokens():
    """q (2, 3, 4, 5), p (2, 6, 7, 5), p_mask (6, 7), q_mask (3, 4); the masks have holes."""
    q = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    p = torch.randn(2, 6, 7, 5, dtype=torch.float64, requires_grad=True)
    p_mask = torch.rand(6, 7) < 0.5
    p_mask[:, 3] = True
    return q, p, p_mask, torch.arange(4) < tensor([[4], [2], [1]])


def gradients(out, q, p):
    weighted = out * torch.arange(out.numel()).view_as(out)
    return torch.autograd.grad(weighted.sum(), (q, p), retain_graph=True)


def test_dot_and_project_of_integers():
    q, p = tensor([[[1.0, 2]], [[0, 1]]]), tensor([[[3.0, 4], [5, 6]], [[7, 8], [9, 1]]])
    assert scores.dot(q, p).tolist() == [[[11, 17]], [[8, 1]]]
    cls = tensor([[[[1.0, 2], [3, 4]]]])
    assert scores.project(cls, tensor([10.0, 1])).tolist() == [[[12, 34]]]


def test_maxsim_of_integers():
    q, p = (
        tensor([[[[1.0, 0], [0, 1]]]]),
        tensor([[[[2.0, 3], [5, 1], [9, 9]], [[-1, -2], [9, 9], [9, 9]]]]),
    )
    p_mask = tensor([[1, 1, 0], [1, 0, 0]])  # the large last tokens are padding
    assert scores.maxsim(q, p, p_mask).tolist() == [[[5 + 3, -1 - 2]]]
    assert scores.maxsim(q, p, p_mask, tensor([[1, 0]])).tolist() == [[[5, -1]]]


@pytest.mark.parametrize("with_q_mask", [False, True])
def test_maxsim_and_its_gradients_are_the_slow_loops(tokens, with_q_mask, monkeypatch):
    q, p, p_mask, q_mask = tokens
    q_mask = q_mask if with_q_mask else None
    slow = slow_maxsim(q, p, p_mask, q_mask)
    want = gradients(slow, q, p)
    for chunk_bytes in (1, 2000, 2**25):  # a passage at a time, some, all
        monkeypatch.setattr(scores, "CHUNK_BYTES", {"cpu": chunk_bytes})
        fast = scores.maxsim(q, p, p_mask, q_mask)
        torch.testing.assert_close(fast, slow)
        torch.testing.assert_close(gradients(fast, q, p), want)


def test_maxsim_of_transposed_states_and_int_masks(tokens):
    q, p, p_mask, q_mask = tokens
    views = q.mT.contiguous().mT, p.transpose(1, 2).contiguous().transpose(1, 2)
    fast, slow = (
        scores.maxsim(*views, p_mask.int(), q_mask.int()),
        scores.maxsim(q, p, p_mask, q_mask),
    )
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(gradients(fast, q, p), gradients(slow, q, p))


def test_maxsim_under_autocast(tokens):
    q, p = (t.detach().float().requires_grad_() for t in tokens[:2])
    with torch.autocast("cpu", torch.bfloat16):
        out = scores.maxsim(q, p, *tokens[2:])
    torch.testing.assert_close(out.double(), scores.maxsim(*tokens), rtol=0.05, atol=0.1)
    assert all(g.isfinite().all() for g in gradients(out, q, p))


def test_padding_never_matters(tokens):
    q, p, p_mask, q_mask = tokens
    filled = torch.where(p_mask[..., None], p, 1e6)
    torch.testing.assert_close(
        scores.maxsim(q, filled, p_mask, q_mask), scores.maxsim(q, p, p_mask, q_mask)
    )
    maps = (scores.attention_maps(q, passages, q_mask, p_mask) for passages in (filled, p))
    torch.testing.assert_close(*maps)
    grad_q, grad_p = gradients(scores.maxsim(q, p, p_mask, q_mask), q, p)
    assert not grad_q[:, ~q_mask].any() and not grad_p[:, ~p_mask].any()


def test_attention_maps_are_the_slow_loop(tokens):
    q, p, p_mask, q_mask = tokens
    maps = scores.attention_maps(q, p, q_mask, p_mask)
    assert maps.shape == (2, 3, 6, 4, 7)
    for k, b, n, x in torch.cartesian_prod(*map(torch.arange, maps.shape[:4])).tolist():
        row = torch.zeros(7, dtype=torch.float64)
        if q_mask[b, x]:
            row[p_mask[n]] = (p[k, n, p_mask[n]] @ q[k, b, x]).softmax(0)
        torch.testing.assert_close(maps[k, b, n, x], row)


def test_bad_masks(tokens):
    q, p, p_mask, q_mask = tokens
    empty = p_mask.clone()
    empty[4] = False
    for call in (
        lambda m: scores.maxsim(q, p, m),
        lambda m: scores.attention_maps(q, p, q_mask, m),
    ):
        with pytest.raises(ValueError, match="p_mask is all 0 for passage 4"):
            call(empty)
        with pytest.raises(
            ValueError, match=r"p_mask has shape \(7, 6\): the token states need \(6, 7\)"
        ):
            call(p_mask.T)
    with pytest.raises(ValueError, match="q_mask has shape"):
        scores.maxsim(q, p, p_mask, q_mask[:2])
