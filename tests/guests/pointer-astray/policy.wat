;; Says that its answer lies at the end of the address space, and not on a boundary.
;;
;; Must come of it: `invalid`.
(func (export "evaluate") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (i32.const -1))
