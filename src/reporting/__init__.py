"""From stored cells to what people read: tables, figures, words, a page. Nothing here computes a cell."""
