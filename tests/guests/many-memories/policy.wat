;; Grows several memories by turns, so that none of them has much.
;;
;; Must come of it: `trap`, naming the limit of all memories together.
(memory $a 1) (memory $b 1) (memory $c 1) (memory $d 1)
(func (export "evaluate") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (loop
    (br_if 0
      (i32.and
        (i32.and (i32.ne (memory.grow $a (i32.const 16)) (i32.const -1)) (i32.ne (memory.grow $b (i32.const 16)) (i32.const -1)))
        (i32.and (i32.ne (memory.grow $c (i32.const 16)) (i32.const -1)) (i32.ne (memory.grow $d (i32.const 16)) (i32.const -1))))))
  unreachable)
