;; Says that it has a million verdicts, where its memory ends.
;;
;; Must come of it: `invalid`, and no room for a million set aside.
(func (export "evaluate") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (i64.store (i32.const 1024) (i64.const 0))
  (i32.store (i32.const 1028) (i32.const 65536))
  (i32.store (i32.const 1032) (i32.const 1000000))
  (i32.const 1024))
