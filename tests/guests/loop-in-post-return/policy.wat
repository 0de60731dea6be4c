;; Answers, and never comes back from the clean-up after it.
;;
;; Must come of it: `deadline`; its answer does not count.
(func (export "evaluated") (param i32)
  (if (call $awake) (then (loop (br 0))))
  (call $forget))
