"""A little code in every language whose syntax is known: indentation by blanks and tabs, comments, strings, Unicode."""

CODE: dict[str, str] = {
    "python": '''import os


def größe(pfad: str, *, tief=True) -> int:
    """Bytes unter `pfad` — nicht gefolgt wird Verweisen."""
    total = 0
    for root, _, names in os.walk(pfad):
        total += sum(os.path.getsize(f"{root}/{name}") for name in names if name != "…")
        if not tief:
            break
    return total  # it's 10_000 at most
''',
    "javascript": """// A queue that doesn't grow.
export class Ring {
\tconstructor(size = 16) {
\t\tthis.items = new Array(size);
\t\tthis.head = 0;
\t}

\tpush(...values) {
\t\tfor (const value of values) { this.items[this.head++ % this.items.length] = value; }
\t\treturn `${this.head} items ✓`;
\t}
}
""",
    "typescript": """interface Point<T extends number = number> {
  readonly x: T;
  y?: T;
}

export async function norm({ x, y = 0 }: Point): Promise<number> {
  const square = (n: number): number => n ** 2;
  return Math.sqrt(square(x) + square(y ?? 0)); // 1e-9
}
""",
    "tsx": """import { useState } from "react";

export function Counter({ label }: { label: string }) {
  const [count, setCount] = useState<number>(0);
  return (
    <button className="counter" onClick={() => setCount(count + 1)}>
      {label}: {count} ☕
    </button>
  );
}
""",
    "java": """package demo;

/** Counts words. */
public final class Words {
    private static final int MAX_LENGTH = 0x7f;

    public static long count(String text) {
        if (text == null || text.isEmpty()) {
            return 0L;
        }
        return java.util.Arrays.stream(text.split("\\\\s+")).filter(w -> w.length() < MAX_LENGTH).count();
    }
}
""",
    "go": """package main

import "fmt"

// Sum adds what it's given.
func Sum(values ...int) (total int, err error) {
\tfor _, v := range values {
\t\ttotal += v
\t}
\tif total < 0 {
\t\treturn 0, fmt.Errorf("negative: %d", total)
\t}
\treturn total, nil
}
""",
    "rust": """use std::collections::HashMap;

/// How often each word occurs.
pub fn count<'a>(text: &'a str) -> HashMap<&'a str, usize> {
    let mut seen = HashMap::new();
    for word in text.split_whitespace() {
        *seen.entry(word).or_insert(0) += 1;
    }
    seen
}
""",
    "c": """#include <stdio.h>
#define LIMIT(a, b) ((a) < (b) ? (a) : (b))

static int sum(const int *values, size_t n)
{
\tint total = 0; /* can't overflow here */
\tfor (size_t i = 0; i < n; ++i)
\t\ttotal += values[i];
\treturn LIMIT(total, 0xFFFF);
}
""",
    "cpp": """#include <vector>

namespace ring {
template <typename T>
class Buffer {
 public:
  explicit Buffer(std::size_t size) : items_(size) {}
  auto push(T value) -> bool {
    if (count_ == items_.size()) return false;
    items_[count_++] = std::move(value);
    return true;
  }

 private:
  std::vector<T> items_;
  std::size_t count_{0};
};
}  // namespace ring
""",
    "csharp": """using System.Linq;

namespace Demo;

public record Order(string Name, decimal Price)
{
    public static decimal Total(params Order[] orders)
    {
        var dear = orders.Where(o => o.Price > 9.99m);
        return dear.Sum(o => o.Price); // €
    }
}
""",
    "ruby": """# Greets people.
class Greeter
  attr_reader :names

  def initialize(*names)
    @names = names.map(&:capitalize)
  end

  def greet
    names.each { |name| puts "Hello, #{name}!" unless name.empty? }
  end
end
""",
    "php": """<?php

namespace App;

final class Cart
{
    private array $items = [];

    public function add(string $name, int $count = 1): self
    {
        $this->items[$name] = ($this->items[$name] ?? 0) + $count;

        return $this;
    }
}
""",
    "bash": """#!/usr/bin/env bash
set -euo pipefail

for file in "$@"; do
  if [[ -f "$file" && ! -L "$file" ]]; then
    size=$(wc -c < "$file")
    printf '%s\\t%d\\n' "${file##*/}" "$size"
  fi
done | sort -k2,2nr
""",
    "sql": """-- Customers that bought more than once.
SELECT c.name, COUNT(*) AS orders, SUM(o.total) AS spent
FROM customers AS c
JOIN orders AS o ON o.customer_id = c.id
WHERE o.placed >= '2024-01-01' AND c.country IN ('DE', 'FR')
GROUP BY c.name
HAVING COUNT(*) > 1
ORDER BY spent DESC;
""",
    "yaml": """name: build
on: [push, pull_request]
jobs:
  test:
    runs-on: ubuntu-latest
    strategy:
      matrix: {python: ["3.11", "3.12"]}
    steps:
      - uses: actions/checkout@v4
      - run: |
          make install
          make test
""",
    "json": """{
  "name": "größe",
  "version": "1.0.12",
  "scripts": {"test": "run --all", "build": null},
  "files": ["src", "lib/*.js"],
  "limits": {"low": -1.5e-3, "high": 100, "strict": true}
}
""",
    "html": """<!DOCTYPE html>
<html lang="en">
  <head><title>Prices &amp; offers</title></head>
  <body>
    <!-- one row an item -->
    <ul class="items" id='main'>
      <li data-price="9.99">Tea – 50&nbsp;g</li>
      <li>Coffee</li>
    </ul>
  </body>
</html>
""",
    "css": """@media (max-width: 40em) {
  .items > li:hover, #main::before {
    color: #ff00aa;
    margin: 0 auto 1.5rem;
    background: url("tea.png") no-repeat;
  }
}
""",
}
