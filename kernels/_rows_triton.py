"""Where each product's entries lie, and products grouped by mask row: one small launch each.

Both kernels run as one program that walks over the batch: their work is too small to spread, and
a launch costs more than it takes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["BLOCK_B", "FUSED", "NUM_WARPS", "ProductBlocks", "entry_indptr", "product_blocks"]

# Every launch says it: Triton is about to change what it does where nothing is said.
FUSED = {"enable_fp_fusion": True}
BLOCK_B = 1_024
NUM_WARPS = 8


@triton.jit
def entry_indptr_kernel(
    mask_indptr_ptr,  # [C + 1], int64
    mask_rows_ptr,  # [B], int64
    indptr_ptr,  # [B + 1], int64, out
    num_products,
    num_masks,
    BLOCK_B: tl.constexpr,
):
    total = tl.zeros((), dtype=tl.int64)
    tl.store(indptr_ptr, total)
    for start in range(0, num_products, BLOCK_B):
        offs_b = start + tl.arange(0, BLOCK_B)
        mask_b = offs_b < num_products
        b_row = tl.load(mask_rows_ptr + offs_b, mask=mask_b, other=-1)
        has_row = (b_row >= 0) & (b_row < num_masks)
        b_first = tl.load(mask_indptr_ptr + b_row, mask=has_row, other=0)
        b_end = tl.load(mask_indptr_ptr + b_row + 1, mask=has_row, other=0)
        b_length = b_end - b_first
        tl.store(indptr_ptr + 1 + offs_b, total + tl.cumsum(b_length, 0), mask=mask_b)
        total += tl.sum(b_length, 0)


@triton.jit
def product_blocks_kernel(
    rows_ptr,  # [B], int64, sorted
    first_ptr,  # [B], int32, out: place of each block's first product
    num_blocks_ptr,  # [1], int32, out
    num_products,
    num_masks,
    num_steps,  # of a binary search over the batch
    BLOCK_M: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    total = tl.zeros((), dtype=tl.int32)
    for start in range(0, num_products, BLOCK_B):
        offs_b = start + tl.arange(0, BLOCK_B)
        mask_b = offs_b < num_products
        b_row = tl.load(rows_ptr + offs_b, mask=mask_b, other=-1)
        b_low = tl.zeros([BLOCK_B], dtype=tl.int32)
        b_high = offs_b
        for _ in range(num_steps):
            b_open = mask_b & (b_low < b_high)
            b_middle = (b_low + b_high) // 2
            b_below = tl.load(rows_ptr + b_middle, mask=b_open, other=0) < b_row
            b_low = tl.where(b_open & b_below, b_middle + 1, b_low)
            b_high = tl.where(b_open & (b_below == 0), b_middle, b_high)
        # b_low: where the product's group starts
        has_row = mask_b & (b_row >= 0) & (b_row < num_masks)
        is_first = (has_row & ((offs_b - b_low) % BLOCK_M == 0)).to(tl.int32)
        b_block = total + tl.cumsum(is_first, 0) - 1
        tl.store(first_ptr + b_block, offs_b, mask=is_first > 0)
        total += tl.sum(is_first, 0)
    tl.store(num_blocks_ptr, total)


def entry_indptr(mask_indptr: Tensor, mask_rows: Tensor) -> Tensor:
    """Row pointers of the products' entries, [B + 1], int64, without waiting for the device."""
    indptr = torch.empty(len(mask_rows) + 1, dtype=torch.int64, device=mask_rows.device)
    entry_indptr_kernel[(1,)](
        mask_indptr,
        mask_rows,
        indptr,
        len(mask_rows),
        len(mask_indptr) - 1,
        BLOCK_B=BLOCK_B,
        num_warps=NUM_WARPS,
        **FUSED,
    )
    return indptr


@dataclass(frozen=True, slots=True)
class ProductBlocks:
    """Products sorted by mask row and cut into blocks of one row each.

    Attributes:
        rows: [B], int64, sorted mask rows; order: [B], int64, the product at each place.
        first: [B], int32, place of each block's first product; num_blocks: [1], int32: how many
            of ``first`` are blocks.
        most_blocks: what ``num_blocks`` cannot exceed: the host does not wait to learn it.
    """

    rows: Tensor
    order: Tensor
    first: Tensor
    num_blocks: Tensor
    most_blocks: int


def product_blocks(
    mask_rows: Tensor, num_masks: int, num_categories: int, block_m: int
) -> ProductBlocks:
    """Blocks of at most ``block_m`` products; ``num_categories`` bounds the distinct mask rows."""
    num_products = len(mask_rows)
    rows, order = torch.sort(mask_rows)
    first = torch.empty(num_products, dtype=torch.int32, device=rows.device)
    num_blocks = torch.empty(1, dtype=torch.int32, device=rows.device)
    product_blocks_kernel[(1,)](
        rows,
        first,
        num_blocks,
        num_products,
        num_masks,
        num_products.bit_length(),
        BLOCK_M=block_m,
        BLOCK_B=BLOCK_B,
        num_warps=NUM_WARPS,
        **FUSED,
    )
    # A row of m products has at most 1 + (m - 1) / block_m blocks.
    spread = min(num_products, num_masks, num_categories)
    most_blocks = min(num_products, spread + (num_products - spread) // block_m)
    return ProductBlocks(rows, order, first, num_blocks, most_blocks)
