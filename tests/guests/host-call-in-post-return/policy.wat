;; Calls the host in the clean-up, where it may not.
;;
;; Must come of it: `trap`.
(func (export "evaluated") (param i32)
  (if (call $awake) (then (drop (call $now))))
  (call $forget))
