;; Refuses to judge, with a text of 100 MB for a reason: more than its memory has.
;;
;; Must come of it: `invalid`, and no 100 MB set aside.
(func (export "evaluate") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (i32.store (i32.const 1024) (i32.const 1))
  (i32.store (i32.const 1028) (i32.const 65536))
  (i32.store (i32.const 1032) (i32.const 100000000))
  (i32.const 1024))
