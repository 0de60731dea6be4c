;; 10,000 verdicts whose messages are the same megabyte: some kilobytes that describe ten gigabytes.
;;
;; Must come of it: `trap`, naming the limit of what crosses at once.
(func (export "evaluate") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (local $at i32)
  (memory.fill (i32.const 131072) (i32.const 0) (i32.const 800000))
  (local.set $at (i32.const 131072))
  (loop
    ;; A verdict has 72 bytes, its message begins at the 20th. Zeros are nothing, ok and info.
    (i32.store offset=20 (local.get $at) (i32.const 0))
    (i32.store offset=24 (local.get $at) (i32.const 1000000))
    (local.set $at (i32.add (local.get $at) (i32.const 72)))
    (br_if 0 (i32.lt_u (local.get $at) (i32.const 851072))))
  (i64.store (i32.const 1024) (i64.const 0))
  (i64.store (i32.const 1032) (i64.const 0))
  (i64.store (i32.const 1040) (i64.const 0))
  (i32.store (i32.const 1028) (i32.const 131072))
  (i32.store (i32.const 1032) (i32.const 10000))
  (i32.const 1024))
