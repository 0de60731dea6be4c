;; Never comes back from the start function, which runs when an instance is made.
;;
;; Must come of it: refused at load, at the start deadline.
(func $start (loop (br 0)))
(start $start)
