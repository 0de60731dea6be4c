;; Answers, and traps in the clean-up after it.
;;
;; Must come of it: `trap`; its answer does not count.
(func (export "evaluated") (param i32)
  (if (call $awake) (then unreachable))
  (call $forget))
