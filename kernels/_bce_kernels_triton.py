"""The kernels of ``masked_bce``: targets, loss with its slope, and the three gradients.

Sums run in a fixed order and nothing is added atomically: results are the same on every run.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "entry_owners_kernel",
    "grad_features_gather_kernel",
    "grad_features_grouped_kernel",
    "grad_weight_kernel",
    "loss_kernel",
    "mark_kernel",
]


@triton.jit
def mark_kernel(
    mask_indptr_ptr,  # [C + 1], int64
    mask_indices_ptr,  # [nnz], int64
    mask_rows_ptr,  # [B], int64
    indptr_ptr,  # [B + 1], int64
    listed_indptr_ptr,  # [B + 1], int64
    listed_indices_ptr,  # [P], int64
    flags_ptr,  # [num_entries], int8, out
    num_entries,
    num_masks,
    num_steps,  # of a binary search over a mask row
    FLAG: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Write ``FLAG`` at the entries of each product's listed labels; others are not touched."""
    product = tl.program_id(0).to(tl.int64)
    row = tl.load(mask_rows_ptr + product)
    if (row < 0) | (row >= num_masks):
        return
    first_label = tl.load(mask_indptr_ptr + row)
    end_label = tl.load(mask_indptr_ptr + row + 1)
    first_entry = tl.load(indptr_ptr + product)
    first_listed = tl.load(listed_indptr_ptr + product)
    num_listed = (tl.load(listed_indptr_ptr + product + 1) - first_listed).to(tl.int32)
    for start in range(0, num_listed, BLOCK_P):
        offs_p = start + tl.arange(0, BLOCK_P)
        mask_p = offs_p < num_listed
        b_label = tl.load(listed_indices_ptr + first_listed + offs_p, mask=mask_p, other=-1)
        b_low = tl.zeros([BLOCK_P], dtype=tl.int64) + first_label
        b_high = tl.zeros([BLOCK_P], dtype=tl.int64) + end_label
        for _ in range(num_steps):
            b_open = b_low < b_high
            b_middle = (b_low + b_high) // 2
            b_below = tl.load(mask_indices_ptr + b_middle, mask=b_open, other=0) < b_label
            b_low = tl.where(b_open & b_below, b_middle + 1, b_low)
            b_high = tl.where(b_open & (b_below == 0), b_middle, b_high)
        in_row = mask_p & (b_low < end_label)
        b_found = tl.load(mask_indices_ptr + b_low, mask=in_row, other=-2) == b_label
        p_entry = first_entry + b_low - first_label
        b_flag = tl.full([BLOCK_P], FLAG, dtype=tl.int8)
        tl.store(flags_ptr + p_entry, b_flag, mask=in_row & b_found & (p_entry < num_entries))


@triton.jit
def _log1p(b_e):
    # log(1 + e) to the last digit for small e: the rounding of 1 + e cancels in the quotient.
    b_u = 1.0 + b_e
    b_d = b_u - 1.0
    return tl.where(b_d == 0.0, b_e, tl.log(b_u) * (b_e / tl.where(b_d == 0.0, 1.0, b_d)))


@triton.jit
def loss_kernel(
    mask_indptr_ptr,  # [C + 1], int64
    mask_indices_ptr,  # [nnz], int64
    mask_rows_ptr,  # [B], int64
    indptr_ptr,  # [B + 1], int64
    flags_ptr,  # [num_entries], int8: 1 positive, 2 sampled negative, 0 neither
    positive_weight_ptr,  # [L], any float
    negative_weight_ptr,  # [B], any float
    values_ptr,  # [num_entries], float32: logits / T in, their slopes / T out
    losses_ptr,  # [B], float32, out
    num_entries,
    num_masks,
    inverse_temperature,
    smoothing,
    smoothing_prior,
    bootstrap,
    HAS_POSITIVE_WEIGHT: tl.constexpr,
    HAS_NEGATIVES: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """A program a product: its loss, and in place of each logit the loss's derivative by it."""
    product = tl.program_id(0).to(tl.int64)
    row = tl.load(mask_rows_ptr + product)
    if (row < 0) | (row >= num_masks):
        tl.store(losses_ptr + product, 0.0)
        return
    first_label = tl.load(mask_indptr_ptr + row)
    first_entry = tl.load(indptr_ptr + product)
    num_labels = (tl.load(indptr_ptr + product + 1) - first_entry).to(tl.int32)
    if HAS_NEGATIVES:
        negative_weight = tl.load(negative_weight_ptr + product).to(tl.float32)
    b_total = tl.zeros([BLOCK_N], dtype=tl.float32)
    for start in range(0, num_labels, BLOCK_N):
        offs_n = start + tl.arange(0, BLOCK_N)
        p_entry = first_entry + offs_n
        mask_n = (offs_n < num_labels) & (p_entry < num_entries)
        b_z = tl.load(values_ptr + p_entry, mask=mask_n, other=0.0)
        b_flag = tl.load(flags_ptr + p_entry, mask=mask_n, other=0)
        is_positive = b_flag == 1
        b_target = tl.where(is_positive, 1.0 - smoothing, 0.0) + smoothing * smoothing_prior
        b_positive = b_target
        if HAS_POSITIVE_WEIGHT:
            b_label = tl.load(mask_indices_ptr + first_label + offs_n, mask=mask_n, other=0)
            b_positive *= tl.load(positive_weight_ptr + b_label, mask=mask_n, other=0.0).to(
                tl.float32
            )
        b_negative = 1.0 - b_target
        if HAS_NEGATIVES:
            b_factor = tl.where(b_flag == 2, negative_weight, tl.where(is_positive, 1.0, 0.0))
            b_positive *= b_factor
            b_negative *= b_factor
        b_tail = _log1p(tl.exp(-tl.abs(b_z)))
        b_plus = tl.maximum(b_z, 0.0) + b_tail  # -log(1 - q)
        b_minus = tl.maximum(-b_z, 0.0) + b_tail  # -log q
        b_q = tl.sigmoid(b_z)
        b_rest = tl.sigmoid(-b_z)
        b_loss = bootstrap * (b_positive * b_minus + b_negative * b_plus)
        b_loss += (1.0 - bootstrap) * b_q * b_minus
        b_slope = bootstrap * (b_negative * b_q - b_positive * b_rest)
        b_slope += (1.0 - bootstrap) * b_q * b_rest * (b_minus - 1.0)
        b_total += tl.where(mask_n, b_loss, 0.0)
        tl.store(values_ptr + p_entry, b_slope * inverse_temperature, mask=mask_n)
    tl.store(losses_ptr + product, tl.sum(b_total, 0))


@triton.jit
def grad_features_gather_kernel(
    w_ptr,  # [L, D]
    mask_indptr_ptr,  # [C + 1], int64
    mask_indices_ptr,  # [nnz], int64
    mask_rows_ptr,  # [B], int64
    indptr_ptr,  # [B + 1], int64
    slopes_ptr,  # [num_entries], float32
    grad_losses_ptr,  # [B], float32
    out_ptr,  # [B, D], out
    stride_wl,
    num_features,
    num_entries,
    num_masks,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """A program a product and tile of features: the weighted sum of its label rows."""
    product = tl.program_id(0).to(tl.int64)
    offs_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    mask_d = offs_d < num_features
    row = tl.load(mask_rows_ptr + product)
    has_row = (row >= 0) & (row < num_masks)
    first_label = tl.load(mask_indptr_ptr + row, mask=has_row, other=0)
    first_entry = tl.load(indptr_ptr + product)
    num_labels = (tl.load(indptr_ptr + product + 1) - first_entry).to(tl.int32)
    grad = tl.load(grad_losses_ptr + product)
    b_sum = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    for start in tl.range(0, num_labels, BLOCK_N, num_stages=3):
        offs_n = start + tl.arange(0, BLOCK_N)
        p_entry = first_entry + offs_n
        mask_n = (offs_n < num_labels) & (p_entry < num_entries)
        b_label = tl.load(mask_indices_ptr + first_label + offs_n, mask=mask_n, other=0)
        b_slope = tl.load(slopes_ptr + p_entry, mask=mask_n, other=0.0) * grad
        b_w = tl.load(
            w_ptr + b_label[:, None] * stride_wl + offs_d[None, :],
            mask=mask_n[:, None] & mask_d[None, :],
            other=0.0,
        )
        b_sum += b_w.to(tl.float32) * b_slope[:, None]
    b_grad = tl.sum(b_sum, 0).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + product * num_features + offs_d, b_grad, mask=mask_d)


@triton.jit
def grad_features_grouped_kernel(
    w_ptr,  # [L, D]
    mask_indptr_ptr,  # [C + 1], int64
    mask_indices_ptr,  # [nnz], int64
    rows_ptr,  # [B], int64, sorted
    order_ptr,  # [B], int64
    first_ptr,  # [B], int32
    num_blocks_ptr,  # [1], int32
    indptr_ptr,  # [B + 1], int64
    slopes_ptr,  # [num_entries], float32
    grad_losses_ptr,  # [B], float32
    out_ptr,  # [B, D], out; rows of products without a mask row are not touched
    stride_wl,
    num_products,
    num_features,
    num_entries,
    PRECISION: tl.constexpr,
    DOT_DTYPE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """A program a block of products of one mask row and tile of features."""
    block = tl.program_id(0)
    if block >= tl.load(num_blocks_ptr):
        return
    first = tl.load(first_ptr + block)
    row = tl.load(rows_ptr + first)
    offs_m = first + tl.arange(0, BLOCK_M)
    inside = offs_m < num_products
    mask_m = inside & (tl.load(rows_ptr + offs_m, mask=inside, other=-1) == row)
    b_product = tl.load(order_ptr + offs_m, mask=mask_m, other=0)
    b_first_entry = tl.load(indptr_ptr + b_product, mask=mask_m, other=0)
    b_grad_loss = tl.load(grad_losses_ptr + b_product, mask=mask_m, other=0.0)
    first_label = tl.load(mask_indptr_ptr + row)
    num_labels = (tl.load(mask_indptr_ptr + row + 1) - first_label).to(tl.int32)
    offs_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    mask_d = offs_d < num_features
    b_sum = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    for start in range(0, num_labels, BLOCK_N):
        offs_n = start + tl.arange(0, BLOCK_N)
        mask_n = offs_n < num_labels
        b_label = tl.load(mask_indices_ptr + first_label + offs_n, mask=mask_n, other=0)
        p_entry = b_first_entry[:, None] + offs_n[None, :]
        mask_e = mask_m[:, None] & mask_n[None, :] & (p_entry < num_entries)
        b_slope = tl.load(slopes_ptr + p_entry, mask=mask_e, other=0.0) * b_grad_loss[:, None]
        b_w = tl.load(
            w_ptr + b_label[:, None] * stride_wl + offs_d[None, :],
            mask=mask_n[:, None] & mask_d[None, :],
            other=0.0,
        )
        b_sum = tl.dot(b_slope.to(DOT_DTYPE), b_w.to(DOT_DTYPE), b_sum, input_precision=PRECISION)
    p_out = out_ptr + b_product[:, None] * num_features + offs_d[None, :]
    tl.store(p_out, b_sum.to(out_ptr.dtype.element_ty), mask=mask_m[:, None] & mask_d[None, :])


@triton.jit
def entry_owners_kernel(
    mask_indptr_ptr,  # [C + 1], int64
    mask_indices_ptr,  # [nnz], int64
    mask_rows_ptr,  # [B], int64
    indptr_ptr,  # [B + 1], int64
    labels_ptr,  # [num_entries], int64, out
    products_ptr,  # [num_entries], int32, out
    num_entries,
    num_masks,
    BLOCK_N: tl.constexpr,
):
    """Label and product of each entry."""
    product = tl.program_id(0).to(tl.int64)
    row = tl.load(mask_rows_ptr + product)
    if (row < 0) | (row >= num_masks):
        return
    first_label = tl.load(mask_indptr_ptr + row)
    first_entry = tl.load(indptr_ptr + product)
    num_labels = (tl.load(indptr_ptr + product + 1) - first_entry).to(tl.int32)
    for start in range(0, num_labels, BLOCK_N):
        offs_n = start + tl.arange(0, BLOCK_N)
        p_entry = first_entry + offs_n
        mask_n = (offs_n < num_labels) & (p_entry < num_entries)
        b_label = tl.load(mask_indices_ptr + first_label + offs_n, mask=mask_n, other=0)
        tl.store(labels_ptr + p_entry, b_label, mask=mask_n)
        b_product = tl.zeros([BLOCK_N], dtype=tl.int32) + product.to(tl.int32)
        tl.store(products_ptr + p_entry, b_product, mask=mask_n)


@triton.jit
def grad_weight_kernel(
    x_ptr,  # [B, D]
    entries_ptr,  # [N], int64: entries sorted by label
    labels_ptr,  # [N], int64: their labels
    products_ptr,  # [N], int32: product of each entry, by entry
    first_ptr,  # [N + 1], int64: place of each touched label's first sorted entry
    num_touched_ptr,  # [1], int64
    slopes_ptr,  # [N], float32, by entry
    grad_losses_ptr,  # [B], float32
    grad_weight_ptr,  # [L, D] or [touched labels, D], out: touched rows only
    grad_bias_ptr,  # [L] or [touched labels], out
    stride_xb,
    num_features,
    BY_LABEL: tl.constexpr,  # a row a label, else a row a touched label
    BLOCK_E: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """A program a tile of features, and touched labels in turn: the weighted sum of products."""
    offs_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    mask_d = offs_d < num_features
    num_touched = tl.load(num_touched_ptr)
    for touched in range(tl.program_id(0), num_touched, tl.num_programs(0)):
        first = tl.load(first_ptr + touched)
        end = tl.load(first_ptr + touched + 1)
        b_sum = tl.zeros([BLOCK_E, BLOCK_D], dtype=tl.float32)
        b_bias = tl.zeros([BLOCK_E], dtype=tl.float32)
        for start in tl.range(first, end, BLOCK_E, num_stages=3):
            offs_e = start + tl.arange(0, BLOCK_E)
            mask_e = offs_e < end
            b_entry = tl.load(entries_ptr + offs_e, mask=mask_e, other=0)
            b_product = tl.load(products_ptr + b_entry, mask=mask_e, other=0).to(tl.int64)
            b_slope = tl.load(slopes_ptr + b_entry, mask=mask_e, other=0.0)
            b_slope *= tl.load(grad_losses_ptr + b_product, mask=mask_e, other=0.0)
            b_x = tl.load(
                x_ptr + b_product[:, None] * stride_xb + offs_d[None, :],
                mask=mask_e[:, None] & mask_d[None, :],
                other=0.0,
            )
            b_sum += b_x.to(tl.float32) * b_slope[:, None]
            b_bias += b_slope
        row = num_touched * 0 + touched
        if BY_LABEL:
            row = tl.load(labels_ptr + first)
        b_grad = tl.sum(b_sum, 0).to(grad_weight_ptr.dtype.element_ty)
        tl.store(grad_weight_ptr + row * num_features + offs_d, b_grad, mask=mask_d)
        if tl.program_id(1) == 0:
            tl.store(grad_bias_ptr + row, tl.sum(b_bias, 0).to(grad_bias_ptr.dtype.element_ty))
