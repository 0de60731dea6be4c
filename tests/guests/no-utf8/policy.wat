;; Refuses to judge, in bytes that are no text.
;;
;; Must come of it: `invalid`.
(data (i32.const 2048) "\ff\fe\80\c0")
(func (export "evaluate") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (i32.store (i32.const 1024) (i32.const 1))
  (i32.store (i32.const 1028) (i32.const 2048))
  (i32.store (i32.const 1032) (i32.const 4))
  (i32.const 1024))
