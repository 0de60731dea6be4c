;; Fills and copies all memory that it may have, in single instructions, again and again.
;;
;; Must come of it: `deadline`: an instruction that takes long may not outlast it by much.
(func (export "evaluate") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (drop (memory.grow (i32.const 224)))
  (loop
    (memory.fill (i32.const 65536) (i32.const 0xAA) (i32.const 15000000))
    (memory.copy (i32.const 65537) (i32.const 65536) (i32.const 15000000))
    (br 0))
  unreachable)
