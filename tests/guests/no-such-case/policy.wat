;; Answers with the 77th case of a result that has two.
;;
;; Must come of it: `invalid`.
(func (export "evaluate") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (i32.store (i32.const 1024) (i32.const 77))
  (i32.const 1024))
