;; Grows its table until there is no more.
;;
;; Must come of it: `trap`, naming the limit of tables.
(table $t 1 funcref)
(func (export "evaluate") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (loop (br_if 0 (i32.ne (table.grow $t (ref.null func) (i32.const 4096)) (i32.const -1))))
  unreachable)
