;; Gives the host room outside of its memory.
;;
;; Must come of it: `invalid`, and nothing written.
(func (export "realloc") (param i32 i32 i32 i32) (result i32)
  (if (call $awake) (then (return (i32.const -8))))
  (call $bump (local.get 3)))
