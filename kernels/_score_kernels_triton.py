"""The three ways to the logits of the relevant labels, as Triton kernels.

Each writes ``out[indptr[i] + k] = (features_i . weight_j + bias_j) / T``, j the k-th label of
product i's mask row, through a sigmoid where ``SIGMOID``. See README.md for when which one wins.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["dense_kernel", "gather_kernel", "grouped_kernel"]


@triton.jit
def _finish(b_z, b_bias, inverse_temperature, SIGMOID: tl.constexpr):
    b_z = (b_z + b_bias) * inverse_temperature
    if SIGMOID:
        b_z = tl.sigmoid(b_z)
    return b_z


@triton.jit
def gather_kernel(
    x_ptr,  # [B, D]
    w_ptr,  # [L, D]
    bias_ptr,  # [L]
    mask_indptr_ptr,  # [C + 1], int64
    mask_indices_ptr,  # [nnz], int64
    mask_rows_ptr,  # [B], int64
    indptr_ptr,  # [B + 1], int64
    out_ptr,  # [num_out], float32
    stride_xb,
    stride_wl,
    num_features,
    num_out,
    num_masks,
    inverse_temperature,
    SIGMOID: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """A program a product and split: its label rows are read one chunk after the other.

    The loop asks for loads ahead by name: Triton does so by itself only for products of tiles.
    """
    product = tl.program_id(0).to(tl.int64)
    split = tl.program_id(1)
    row = tl.load(mask_rows_ptr + product)
    if (row < 0) | (row >= num_masks):
        return
    first_out = tl.load(indptr_ptr + product)
    num_labels = (tl.load(indptr_ptr + product + 1) - first_out).to(tl.int32)
    first_label = tl.load(mask_indptr_ptr + row)
    offs_d = tl.arange(0, BLOCK_D)
    for start in range(split * BLOCK_N, num_labels, tl.num_programs(1) * BLOCK_N):
        offs_n = start + tl.arange(0, BLOCK_N)
        mask_n = offs_n < num_labels
        b_label = tl.load(mask_indices_ptr + first_label + offs_n, mask=mask_n, other=0)
        p_w = w_ptr + b_label[:, None] * stride_wl
        b_sum = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
        for d in tl.range(0, num_features, BLOCK_D, num_stages=3):
            mask_d = d + offs_d < num_features
            b_x = tl.load(x_ptr + product * stride_xb + d + offs_d, mask=mask_d, other=0.0)
            b_w = tl.load(
                p_w + (d + offs_d)[None, :], mask=mask_n[:, None] & mask_d[None, :], other=0.0
            )
            b_sum += b_w.to(tl.float32) * b_x.to(tl.float32)[None, :]
        b_bias = tl.load(bias_ptr + b_label, mask=mask_n, other=0.0).to(tl.float32)
        b_z = _finish(tl.sum(b_sum, 1), b_bias, inverse_temperature, SIGMOID)
        p_out = first_out + offs_n
        tl.store(out_ptr + p_out, b_z, mask=mask_n & (p_out < num_out))


@triton.jit
def grouped_kernel(
    x_ptr,  # [B, D]
    w_ptr,  # [L, D]
    bias_ptr,  # [L]
    mask_indptr_ptr,  # [C + 1], int64
    mask_indices_ptr,  # [nnz], int64
    rows_ptr,  # [B], int64, sorted
    order_ptr,  # [B], int64
    first_ptr,  # [B], int32
    num_blocks_ptr,  # [1], int32
    indptr_ptr,  # [B + 1], int64
    out_ptr,  # [num_out], float32
    stride_xb,
    stride_wl,
    num_products,
    num_features,
    num_out,
    inverse_temperature,
    SIGMOID: tl.constexpr,
    PRECISION: tl.constexpr,
    DOT_DTYPE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """A program a block of products of one mask row and split: rows are gathered once for all."""
    block = tl.program_id(0)
    split = tl.program_id(1)
    if block >= tl.load(num_blocks_ptr):
        return
    first = tl.load(first_ptr + block)
    row = tl.load(rows_ptr + first)
    offs_m = first + tl.arange(0, BLOCK_M)
    inside = offs_m < num_products
    mask_m = inside & (tl.load(rows_ptr + offs_m, mask=inside, other=-1) == row)
    b_product = tl.load(order_ptr + offs_m, mask=mask_m, other=0)
    b_first_out = tl.load(indptr_ptr + b_product, mask=mask_m, other=0)
    first_label = tl.load(mask_indptr_ptr + row)
    num_labels = (tl.load(mask_indptr_ptr + row + 1) - first_label).to(tl.int32)
    offs_d = tl.arange(0, BLOCK_D)
    p_x = x_ptr + b_product[:, None] * stride_xb
    for start in range(split * BLOCK_N, num_labels, tl.num_programs(1) * BLOCK_N):
        offs_n = start + tl.arange(0, BLOCK_N)
        mask_n = offs_n < num_labels
        b_label = tl.load(mask_indices_ptr + first_label + offs_n, mask=mask_n, other=0)
        p_w = w_ptr + b_label[None, :] * stride_wl
        b_z = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.float32)
        for d in range(0, num_features, BLOCK_D):
            mask_d = d + offs_d < num_features
            b_x = tl.load(
                p_x + (d + offs_d)[None, :], mask=mask_m[:, None] & mask_d[None, :], other=0.0
            )
            b_w = tl.load(
                p_w + (d + offs_d)[:, None], mask=mask_d[:, None] & mask_n[None, :], other=0.0
            )
            b_z = tl.dot(b_x.to(DOT_DTYPE), b_w.to(DOT_DTYPE), b_z, input_precision=PRECISION)
        b_bias = tl.load(bias_ptr + b_label, mask=mask_n, other=0.0).to(tl.float32)
        b_z = _finish(b_z, b_bias[None, :], inverse_temperature, SIGMOID)
        p_out = b_first_out[:, None] + offs_n[None, :]
        mask_out = mask_m[:, None] & mask_n[None, :] & (p_out < num_out)
        tl.store(out_ptr + p_out, b_z, mask=mask_out)


@triton.jit
def dense_kernel(
    x_ptr,  # [B, D]
    w_ptr,  # [L, D]
    bias_ptr,  # [L]
    mask_indptr_ptr,  # [C + 1], int64
    mask_indices_ptr,  # [nnz], int64
    mask_rows_ptr,  # [B], int64
    indptr_ptr,  # [B + 1], int64
    out_ptr,  # [num_out], float32
    stride_xb,
    stride_wl,
    num_products,
    num_features,
    num_labels,
    num_out,
    num_masks,
    num_steps,  # of a binary search over a mask row
    inverse_temperature,
    SIGMOID: tl.constexpr,
    PRECISION: tl.constexpr,
    DOT_DTYPE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """A program a tile of the dense product, of which it keeps only what the masks allow.

    A tile that no mask touches is not computed.
    """
    first_label = tl.program_id(0) * BLOCK_N
    offs_m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    mask_m = offs_m < num_products
    b_row = tl.load(mask_rows_ptr + offs_m, mask=mask_m, other=-1)
    has_row = (b_row >= 0) & (b_row < num_masks)
    b_start = tl.load(mask_indptr_ptr + b_row, mask=has_row, other=0)
    b_end = tl.load(mask_indptr_ptr + b_row + 1, mask=has_row, other=0)
    # The first entry of each mask row that lies in this tile or after it.
    b_low = b_start
    b_high = b_end
    for _ in range(num_steps):
        b_open = b_low < b_high
        b_middle = (b_low + b_high) // 2
        b_below = tl.load(mask_indices_ptr + b_middle, mask=b_open, other=0) < first_label
        b_low = tl.where(b_open & b_below, b_middle + 1, b_low)
        b_high = tl.where(b_open & (b_below == 0), b_middle, b_high)
    b_next = tl.load(mask_indices_ptr + b_low, mask=b_low < b_end, other=num_labels)
    if tl.min(b_next, 0) >= first_label + BLOCK_N:
        return
    offs_n = first_label + tl.arange(0, BLOCK_N)
    mask_n = offs_n < num_labels
    offs_d = tl.arange(0, BLOCK_D)
    p_x = x_ptr + offs_m.to(tl.int64)[:, None] * stride_xb
    p_w = w_ptr + offs_n.to(tl.int64)[None, :] * stride_wl
    b_z = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.float32)
    for d in range(0, num_features, BLOCK_D):
        mask_d = d + offs_d < num_features
        b_x = tl.load(
            p_x + (d + offs_d)[None, :], mask=mask_m[:, None] & mask_d[None, :], other=0.0
        )
        b_w = tl.load(
            p_w + (d + offs_d)[:, None], mask=mask_d[:, None] & mask_n[None, :], other=0.0
        )
        b_z = tl.dot(b_x.to(DOT_DTYPE), b_w.to(DOT_DTYPE), b_z, input_precision=PRECISION)
    b_bias = tl.load(bias_ptr + offs_n, mask=mask_n, other=0.0).to(tl.float32)
    b_z = _finish(b_z, b_bias[None, :], inverse_temperature, SIGMOID)
    b_entry = b_low[:, None] + tl.arange(0, BLOCK_N)[None, :]
    mask_e = b_entry < b_end[:, None]
    b_label = tl.load(mask_indices_ptr + b_entry, mask=mask_e, other=0)
    mask_e = mask_e & (b_label < first_label + BLOCK_N)
    b_column = tl.where(mask_e, b_label - first_label, 0).to(tl.int32)
    b_kept = tl.gather(b_z, b_column, 1)
    b_first_out = tl.load(indptr_ptr + offs_m, mask=mask_m, other=0)
    p_out = (b_first_out - b_start)[:, None] + b_entry
    tl.store(out_ptr + p_out, b_kept, mask=mask_e & (p_out < num_out))
